#!/bin/bash
# Packs $MODEL for bodies of the kind $BODY below $WORK, and serves it on $PORT by $WORKERS processes.
set -e
export PYTHONPATH=$(realpath "$PEER/../../..")  # the service of this working tree
"$VENV/bin/python" "$PEER/bundle.py" "$MODEL" "$WORK/models" "$BODY"
export DUNNO_WORKERS=$WORKERS DUNNO_LOG_LEVEL=warning
exec "$VENV/bin/python" -m service.cli serve --host 127.0.0.1 --port "$PORT" --models "$WORK/models"
