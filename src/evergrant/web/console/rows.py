"""The buttons of an app's form that only change the form: rows to add and to take away, and what a template says."""

from evergrant.web.console.app_form import Values


def after(values: Values, pressed: str, standard: Values) -> tuple[Values, str]:
    """Return the fields after a button was pressed, and which one the person goes on with.

    A button is called `add:FIELD:TEXT`, `remove:FIELD:ROW` or `reset:FIELD`. One that there is not changes nothing.
    """
    what, _, rest = pressed.partition(":")
    name, _, text = rest.partition(":")
    if what == "reset" and name in standard:
        return {**values, name: standard[name]}, name
    rows = values.get(name)
    if not isinstance(rows, list) or name == "prompt":
        return values, ""
    if what == "add":
        new = [True, text, standard_words(standard, text)] if name == "scopes" else [text, ""]
        return {**values, name: [*rows, new]}, f"{name}.{len(rows)}"
    if what == "remove":
        return {**values, name: [row for place, row in enumerate(rows) if str(place) != text]}, ""
    return values, ""


def standard_words(standard: Values, scope: str) -> str:
    """Return what a template says about a scope."""
    return next((words for _, value, words in standard.get("scopes", ()) if value == scope), "")
