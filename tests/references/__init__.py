"""The layers as loops over numbers, in float64.

They share no idiom with the layers: a batch is a list of videos, a video the
list of its real frames, so that no reference ever sees padding. Variables come
as a dict of name to array.
"""
