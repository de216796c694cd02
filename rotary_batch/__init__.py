"""Document whole codebases overnight with a Mixture-of-Experts model larger than the GPU.

Knows the version; everything else is imported from the module that owns it.
"""

__version__ = "0.1.0"
