"""HDF5 files of ours: the only package that knows h5py. The format is described in docs/format.md."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
