"""Static files under names that carry their hash, so that a browser may keep them for ever."""

from __future__ import annotations

from whitenoise.storage import CompressedManifestStaticFilesStorage

_IMPORT = r"""(?P<matched>(?P<before>(?:import|export)\b[^'";]*?)['"](?P<url>\./[\w./-]+\.js)['"])"""


class HashedStaticFilesStorage(CompressedManifestStaticFilesStorage):
    """Also renames what our own ES modules import from one another.

    Django's `support_js_module_import_aggregation` does it for every script found, those of other packages included,
    where a line that only looks like an import stops collectstatic.
    """

    patterns = (
        *CompressedManifestStaticFilesStorage.patterns,
        ("js/*.js", ((_IMPORT, '%(before)s"%(url)s"'),)),
    )
