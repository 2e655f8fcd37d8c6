"""Services: a model, a tokenizer and a memory, each for callers in the process and for a server's requests.

- ``model_service``, ``tokenizer_service``, ``memory_service``: the three services; ``service`` is their base class.
- ``endpoints``: a method's ``post_*`` coroutine and the description of its fields, both from the method's signature.
- ``active_artifacts``: the artifacts that a service uses. ``artifact_output`` checks what they return, ``result_cache``
  keeps results in a memory artifact, ``fingerprint`` identifies an artifact in a cache key.
- ``model_runner``: forward passes in packed batches. ``attention`` and ``parallel_layers`` put artifacts into the
  layers, ``batcher`` joins concurrent requests, ``limits`` bounds what a request may ask for.
- ``request_context``: the deadline and the threads of the current request. ``progress``: a progress bar.
"""
