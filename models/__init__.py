"""Every model, a family a file; `models.BaseModel` is their contract."""

from models.base import BaseModel as BaseModel
