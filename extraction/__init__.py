"""From a file of pictures and sound to features, a row each 1 / fps seconds.

`media` decodes, `preprocessing` and `inputs` make of that what an encoder
takes, `encoders` are the networks, `extractor` is all of it for one file, and
`clips` for many. `pca` shortens and whitens what comes out.

FFmpeg through PyAV, ONNX Runtime and the weights of EfficientNet-Lite0 are the
extra `[extract]` of setup.py: without them these modules can be imported, and
say what is missing where it is needed.
"""
