"""Whoever holds a key of one project, or names one owner, reaches nothing of another."""

from tests.infra.installation import APP_ID, SCOPES, Backend, Installation
from tests.infra.rows import dump


def test_another_projects_key_reaches_nothing_whatever_it_names(here: Installation, other: Backend) -> None:
    here.connected("alice")
    hook = here.backend.post("webhook/create", {"url": "http://127.0.0.1:9/hook"}).json()["webhook"]["id"]
    token = here.backend.token("alice")["id"]
    before = dump(here.settings)
    (key,) = [row["id"] for row in before["management_keys"] if row["project_id"] == here.backend.project_id]
    owner = {"appId": APP_ID, "userId": "alice"}
    calls = {
        "app/update": {"app": {"id": APP_ID, "name": "Mine"}},
        "app/delete": {"id": APP_ID},
        "app/user/token": {**owner, "scopes": SCOPES},
        "app/user/token/latest": owner,
        "app/connect": owner,
        "app/user/oauthtoken/upload": {**owner, "accessToken": "planted"},
        "token/refresh": {"id": token},
        "webhook/update": {"id": hook, "url": "http://127.0.0.1:9/x", "enabled": True},
        "webhook/delete": {"id": hook},
        "webhook/rotate-secret": {"id": hook},
        "webhook/test": {"id": hook},
        "policies": {"appId": APP_ID, "action": "fetch"},
    }
    for path, body in calls.items():
        assert other.post(path, body).status_code == 404, path
    for path in (f"app/{APP_ID}", f"webhook/{hook}"):
        assert other.get(path).status_code == 404, path
    assert other.http.delete(f"/v1/mgmt/outbound/token?id={token}").status_code == 404
    other.http.delete(f"/v1/mgmt/outbound/user/tokens?appId={APP_ID}&userId=alice")
    other.http.post("/v1/mgmt/managementkey/delete", json={"ids": [key]})
    for path, name in (("apps", "apps"), ("tokens", "tokens"), ("webhooks", "webhooks")):
        assert other.get(path).json()[name] == [], path
    mine = here.backend.project_id
    assert {t: [r for r in rows if r.get("project_id") == mine] for t, rows in dump(here.settings).items()} == {
        t: [r for r in rows if r.get("project_id") == mine] for t, rows in before.items()
    }
    assert here.backend.token("alice")["id"] == token  # control


def test_a_key_does_not_pass_under_another_projects_name(here: Installation, other: Backend) -> None:
    for project, key in (
        (here.backend.project_id, other.management_key),
        (other.project_id, here.backend.management_key),
        ("", here.backend.management_key),
        (f"{other.project_id}:{here.backend.project_id}", here.backend.management_key),
    ):
        headers = {"Authorization": f"Bearer {project}:{key}"}
        assert here.backend.http.get("/v1/mgmt/outbound/apps", headers=headers).status_code == 401, project
    assert here.backend.get("apps").status_code == other.get("apps").status_code == 200  # control


def test_a_user_a_user_in_a_tenant_and_a_tenant_never_answer_for_each_other(here: Installation) -> None:
    owners = ({"userId": "acme"}, {"userId": "acme", "tenantId": "acme"}, {"tenantId": "acme"})
    levels = ("user", "user", "tenant")

    def fetch(level: str, owner: dict[str, str]) -> tuple[int, str]:
        answer = here.backend.post(f"app/{level}/token/latest", {"appId": app_id, **owner})
        return answer.status_code, answer.json().get("token", {}).get("accessToken", "")

    for held, level in zip(owners, levels, strict=True):
        app_id = here.backend.new_app({"name": "Alike"}, appType="apikey")
        upload = {"appId": app_id, **held, "apiKey": "the key of one of them"}
        assert here.backend.post(f"app/{level}/apikey/upload", upload).status_code == 200
        answers = [fetch(kind, owner) for kind, owner in zip(levels, owners, strict=True)]
        assert answers == [(200, "the key of one of them") if owner == held else (404, "") for owner in owners]
