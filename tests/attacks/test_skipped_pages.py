"""No link takes a person's account without a word: not on evergrant's page, and not from the application."""

import httpx2

from tests.infra.installation import Installation, came_back
from tests.infra.people import someone


def test_an_attacker_whose_link_is_opened_by_another_site_connects_nobody_without_a_page(here: Installation) -> None:
    """An app that asks nothing afterwards shows the consent page, though it says to skip it; one that asks skips it."""
    registration = here.provider.registration
    careless = here.backend.new_app(registration, skipConsentPage=True)
    victim = here.browser()
    victim.http.follow_redirects = True
    for _ in range(2):  # with and without a cookie
        page = victim.open(here.backend.connect_url(someone(), appId=careless))
        assert page.status_code == 200
        assert str(page.url).startswith(f"{here.url}/connect/")
        assert "Cancel" in page.text
    assert here.backend.app(careless)["warnings"][0]["code"] == "skip_consent_page"

    careful, user = here.backend.new_app(registration, skipConsentPage=True, requireConfirmation=True), someone()
    page = victim.open(here.backend.connect_url(user, appId=careful))
    assert str(page.url).startswith(here.provider.url)
    assert here.backend.app(careful)["warnings"] == []
    victim.http.follow_redirects = False
    back = came_back(victim.open(victim.allow(str(page.url))))
    assert here.backend.fetch(user, appId=careful).status_code == 404, "nobody has said who came back"
    confirmed: httpx2.Response = here.backend.post(
        "app/connect/confirm", {"confirmation": back["confirmation"], "userId": user}
    )
    assert confirmed.status_code == 200
    assert here.backend.token(user, appId=careful)["accessToken"]
