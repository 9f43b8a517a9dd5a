"""Settings of the documentation; "make docs" builds it, and each warning is an error."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

project = "flask_realtime"
author = "The flask_realtime authors"
release = version = re.search(r'__version__ = "(.+?)"', (ROOT / "flask_realtime" / "__init__.py").read_text())[1]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "reliability-table.md", "deploy/table.md"]  # the tables are included
# Single backticks in docstrings name Python objects; where none is found they are just code.
default_role = "py:obj"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
autoclass_content = "class"
maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"flask_realtime {release}"
html_show_copyright = False
html_show_sourcelink = False


def setup(app):
    """Leave arguments that begin with an underscore, ours alone, out of signatures."""

    def process(app, what, name, obj, options, signature, returned):
        if signature is not None and ", _" in signature:
            signature = re.sub(r", _\w+: .*?(= \w+)(?=, |\))", "", signature)
        return signature, returned

    app.connect("autodoc-process-signature", process)
