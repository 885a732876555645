"""A trained model in Python: arrays in, names and scores out.

    import learnable_pooling

    model = learnable_pooling.load("runs/own")  # Or model.tgz.
    found = model.predict({"clip": clip, "sound": sound})  # [frames, numbers]
    print(found.names, found.scores)
    model.predict([one, another], descriptor=True)[1].descriptor

No flag is read, and no graph stands in anybody's way: a model has its own. It
may be shared by threads. docs/predictions.md has more.
"""

from named.model import Model, Prediction, load

__all__ = ["Model", "Prediction", "load"]
