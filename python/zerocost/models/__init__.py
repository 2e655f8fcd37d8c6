"""A folder or file of weights in, numbers out. Nothing here knows a service or a registry.

- ``model``: a model as a service runs it, from a folder or built in.
- ``architecture``, ``sentence_config``: what ``config.json`` and the files of sentence-transformers say.
- ``checkpoint``, ``tokenizer``: ``model.safetensors`` and ``tokenizer.json``.
- ``packing``: several sequences as one batch without padding. ``encoder``: the forward pass over that batch, on the
  kernels of ``layers``. ``pooling``: one vector for each sequence.
"""
