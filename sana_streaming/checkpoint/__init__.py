"""Models on disk: our folders of safetensors and config.json, the published files, and folders in diffusers' style."""

from sana_streaming.checkpoint.diffusers import export_diffusers, import_diffusers
from sana_streaming.checkpoint.folder import (
    MODELS,
    SHIPPED,
    check_free,
    check_keys,
    find,
    load,
    load_config,
    save,
    write,
)
from sana_streaming.checkpoint.published import VARIANTS, from_published, import_published, read_template, template_of

__all__ = [
    "MODELS",
    "SHIPPED",
    "VARIANTS",
    "check_free",
    "check_keys",
    "export_diffusers",
    "find",
    "from_published",
    "import_diffusers",
    "import_published",
    "load",
    "load_config",
    "read_template",
    "save",
    "template_of",
    "write",
]
