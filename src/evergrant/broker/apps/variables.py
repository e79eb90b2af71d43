"""Variables: values that differ from app to app or from connection to connection, by an app's catalogue entry.

The operator gives those of source `app`, once; whoever connects gives those of source `user`, unless the app has them;
the rest is captured from answers. What belongs to one connection is kept with it, as its `details`. Nothing counts that
its entry does not allow: it may become part of an address that gets the client secret.
"""

import logging
from collections.abc import Iterable, Mapping

from evergrant.broker.runtime.broker import Broker
from evergrant.catalog.host_values import value_from_address
from evergrant.catalog.template import Template
from evergrant.catalog.variable import Source, Variable
from evergrant.db import OutboundApp
from evergrant.errors import ConnectFailed
from evergrant.oauth2.userinfo import WORDS

log = logging.getLogger(__name__)

Values = Mapping[str, str]
Problems = list[tuple[str, str]]


def template_of(broker: Broker, app: OutboundApp) -> Template | None:
    """Return an app's catalogue entry; None where it has none, or the entry is gone."""
    return broker.catalogue.get(app.template_id) if app.template_id else None


def declared_variables(template: Template | None, *sources: Source) -> dict[str, Variable]:
    """Return an entry's variables of these sources, or all, by name."""
    found = template.variables.items() if template is not None else ()
    return {name: variable for name, variable in found if not sources or variable.source in sources}


def tidied(template: Template | None, values: Values) -> dict[str, str]:
    """Return values as people give them, each taken out of the whole address where one was pasted in its place."""
    if template is None:
        return dict(values)
    return {name: value_from_address(template, name, value) for name, value in values.items()}


def app_variable_problems(template: Template | None, values: Values) -> Problems:
    """Return what is wrong with the values that an operator gives an app, by field."""
    known = declared_variables(template, "app", "user")
    required = declared_variables(template, "app")
    problems = _value_problems("variables", known, values)
    problems += [
        (f"variables.{name}", f"is required: {required[name].title}{_example_hint(required[name])}")
        for name in missing_variables(template, values)
    ]
    return problems


def missing_variables(template: Template | None, values: Values) -> list[str]:
    """Return the names of the variables without which nobody can connect an app that has these values."""
    return [name for name, v in declared_variables(template, "app").items() if v.is_required and not values.get(name)]


def user_variable_problems(template: Template | None, app: OutboundApp, values: Values, *, field: str) -> Problems:
    """Return what is wrong with the values that somebody gives who connects `app`."""
    theirs = {name: v for name, v in declared_variables(template, "user").items() if not app.variables.get(name)}
    return _value_problems(field, theirs, values)


def details_problems(template: Template | None, app: OutboundApp, values: Values) -> Problems:
    """Return what is wrong with the details of an uploaded connection, by field.

    It may have all that a connect trip would ask the user or learn, and must have what no call works without.
    """
    values = tidied(template, values)
    own = declared_variables(template, "user", "callback", "token", "context")
    about = {name: value for name, value in values.items() if name in own or name not in WORDS}
    problems = _value_problems("details", own, about)
    problems += [
        (f"details.{name}", "the app's value counts for everybody: leave it out")
        for name in declared_variables(template, "user")
        if app.variables.get(name) and values.get(name) not in (None, "", app.variables[name])
    ]
    known = {**app.variables, **values}
    problems += [
        (f"details.{name}", f"is required: {variable.title}{_example_hint(variable)}")
        for name, variable in declared_variables(template, "user", "callback").items()
        if variable.is_required and not known.get(name)
    ]
    return problems


def questions(broker: Broker, app: OutboundApp, given: Values) -> dict[str, Variable]:
    """Return the variables, by name, that the person who connects is asked for: nobody has given them yet."""
    return {
        name: variable
        for name, variable in declared_variables(template_of(broker, app), "user").items()
        if not app.variables.get(name) and not given.get(name)
    }


def wrong_answers(asked: Mapping[str, Variable], answers: Values) -> dict[str, str]:
    """Return what is wrong with a person's answers, by name; nothing when the trip can go on with them."""
    problems = {
        name: variable.problem_with(answers[name]) if answers.get(name) else f"enter a value{_example_hint(variable)}"
        for name, variable in asked.items()
        if answers.get(name) or variable.is_required
    }
    return {name: problem for name, problem in problems.items() if problem}


def known_values(template: Template | None, app_values: Values, own: Values) -> dict[str, str]:
    """Return the value of each variable that has one: the connection's `own`, the app's, or the default.

    One that its entry does not allow (any more) is left out, and nothing takes its place.
    """
    found: dict[str, str] = {}
    for name, variable in declared_variables(template, "app", "user", "callback", "token", "context").items():
        places = {"app": (app_values,), "user": (own, app_values)}.get(variable.source, (own,))
        value = next((values[name] for values in places if values.get(name)), variable.default)
        if value and not variable.problem_with(value):
            found[name] = value
    for name, variable in declared_variables(template, "variable").items():
        if found.get(variable.from_) in variable.values:
            found[name] = variable.values[found[variable.from_]]
    return found


def details_of_user(template: Template | None, app: OutboundApp, given: Values) -> dict[str, str]:
    """Return the user's variables that a new connection keeps: as given, or else as the app or the default has them.

    Its tokens belong to that shop or host, whatever the app's own value becomes later.
    """
    values = known_values(template, app.variables, given)
    return {name: values[name] for name in declared_variables(template, "user") if name in values}


def allowed_captures(template: Template | None, captured: Values) -> dict[str, str]:
    """Return those captured values that their entry allows; the others are left out, and logged by name.

    Raises:
        ConnectFailed: one that the browser brought is not what it can be.
    """
    good: dict[str, str] = {}
    for name, value in captured.items():
        variable = declared_variables(template).get(name)
        problem = variable.problem_with(value) if variable is not None else "it is not declared"
        if not problem:
            good[name] = value
        elif variable is not None and variable.source == "callback":
            raise ConnectFailed("invalid_response", f"The provider sent back a {name} that cannot be right: {problem}.")
        else:
            log.warning("an answer has a value that its template does not allow", extra={"variable": name})
    return good


def require_variables(template: Template | None, details: Values, source: Source) -> None:
    """Check that every required variable of a source is there.

    Raises:
        ConnectFailed: naming those that are missing.
    """
    missing = [
        name for name, v in declared_variables(template, source).items() if v.is_required and not details.get(name)
    ]
    if missing:
        raise ConnectFailed("invalid_response", f"The provider did not tell {', '.join(missing)}.")


def _value_problems(field: str, known: Mapping[str, Variable], values: Values) -> Problems:
    problems: Problems = []
    for name, value in values.items():
        variable = known.get(name)
        if variable is None:
            problems.append((f"{field}.{name}", _not_allowed(known)))
        elif value and (problem := variable.problem_with(value)):
            problems.append((f"{field}.{name}", problem))
    return problems


def _not_allowed(known: Iterable[str]) -> str:
    names = ", ".join(known)
    return f"cannot be given here; use {names}" if names else "cannot be given here: leave it out"


def _example_hint(variable: Variable) -> str:
    return f", like {variable.example}" if variable.example else ""
