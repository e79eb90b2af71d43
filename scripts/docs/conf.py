"""Sphinx reads this file: how the pages that `scripts.docs.build` gathered become a site."""

from evergrant import __version__

project = "evergrant"
project_copyright = "the authors of evergrant"
version = release = __version__

smartquotes = False  # what is written is what stands there: options begin with two dashes
extensions = ["myst_parser", "sphinx_inline_tabs"]
myst_heading_anchors = 4  # links such as apps.md#from-a-template, as GitHub has them
myst_links_external_new_tab = False
suppress_warnings = ["myst.header"]  # a page may begin with a picture

html_theme = "furo"
html_title = "evergrant"
html_logo = html_favicon = "../../src/evergrant/web/static/icon.svg"
html_static_path = ["static"]  # beside this file
html_css_files = ["site.css"]
html_js_files = ["folder.js"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0f766e",
        "color-brand-content": "#0f766e",
        "color-brand-visited": "#0f766e",
        "color-sidebar-link-text": "var(--color-foreground-primary)",
        "color-sidebar-link-text--top-level": "var(--color-foreground-primary)",
        "font-stack": 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif',
    },
    "dark_css_variables": {
        "color-brand-primary": "#2dd4bf",
        "color-brand-content": "#2dd4bf",
        "color-brand-visited": "#2dd4bf",
        "color-sidebar-link-text": "var(--color-foreground-primary)",
        "color-sidebar-link-text--top-level": "var(--color-foreground-primary)",
    },
}
