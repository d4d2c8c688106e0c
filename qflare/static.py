"""Static files under hashed names, also inside the imports of ES modules."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class ModuleManifestStaticFilesStorage(CompressedManifestStaticFilesStorage):
    """Rewrites `import … from './store.js'` to the hashed name, so that no import map is needed."""

    support_js_module_import_aggregation = True
