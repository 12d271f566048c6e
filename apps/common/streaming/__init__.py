"""Images in from a folder or a .npz, rows and images out, a batch at a time: stopped anywhere, gone on with exactly."""

from .images_out import ImagesOut, NpzOut, PngOut, images_out
from .job import Done, Job, Worker
from .records import Records
from .sources import Batch, FolderSource, ImageSource, NpzSource, open_source

__all__ = [
    "Batch",
    "Done",
    "FolderSource",
    "ImageSource",
    "ImagesOut",
    "Job",
    "NpzOut",
    "NpzSource",
    "PngOut",
    "Records",
    "Worker",
    "images_out",
    "open_source",
]
