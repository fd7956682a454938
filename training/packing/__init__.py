"""A user's classifier, its labels and labelled rows become a bundle: what `dunno pack` does.

    labelled  ->  classifiers  ->  heads  ->  deciding  ->  pack
    rows that     what the         its graph   what decides,  one bundle
    the model     model says       wrapped     certified
    has not seen  of them

The wrapped graph takes rows as the service hands them over and returns `logits` and
`novelty_scores`; nothing of it is left to be done outside.
"""
