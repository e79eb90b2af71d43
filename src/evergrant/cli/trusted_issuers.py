"""The commands `evergrant issuers`."""

import click
from pydantic import SecretStr

from evergrant import clock
from evergrant.broker.projects.trusted_issuers import create_issuer, delete_issuer, list_issuers
from evergrant.broker.runtime.broker import Broker
from evergrant.cli.running import PASTED, json_option, print_rows, project_option, run, the_project


@click.group()
def issuers() -> None:
    """Trusted issuers: identity providers whose JWTs a project accepts from its users."""


@issuers.command()
@project_option
@click.argument("issuer", type=PASTED)
@click.option("--audience", required=True, type=PASTED, help="Must be in the claim 'aud'.")
@click.option("--jwks-url", default="", type=PASTED, help="Where its keys are; left out where its metadata says so.")
@click.option(
    "--user-claim", default="sub", type=PASTED, show_default=True, help="The claim with your own id of the user."
)
@click.option("--tenant-claim", default="", type=PASTED, help="The claim with the tenant's id, if tokens have one.")
@click.option(
    "--machines-without-user",
    is_flag=True,
    help="Take a token that names a tenant and no user for the tenant's machine. Only where no user can get one.",
)
@click.option("--mcp", is_flag=True, help="Send MCP clients to this issuer for their tokens.")
@click.option(
    "--login-client-id",
    default="",
    type=PASTED,
    help="Our client there, which signs in whoever opens an agent's link; its redirect URI is <public>/login/callback.",
)
@click.option("--login-client-secret", is_flag=True, help="Ask for that client's secret; left out for a public client.")
def add(
    project_id: str | None,
    issuer: str,
    audience: str,
    jwks_url: str,
    user_claim: str,
    tenant_claim: str,
    machines_without_user: bool,
    mcp: bool,
    login_client_id: str,
    login_client_secret: bool,
) -> None:
    """Trust ISSUER, exactly as the claim 'iss' has it."""
    secret = SecretStr(click.prompt("Client secret", hide_input=True)) if login_client_secret else None

    async def _add(broker: Broker) -> str:
        row = await create_issuer(
            broker,
            await the_project(broker, project_id),
            issuer=issuer,
            audience=audience,
            jwks_url=jwks_url,
            user_claim=user_claim,
            tenant_claim=tenant_claim,
            machines_without_user=machines_without_user,
            mcp=mcp,
            login_client_id=login_client_id,
            login_client_secret=secret,
            now=clock.now(),
        )
        return f"{row.id}  {row.issuer}  {row.jwks_url}"

    click.echo(run(_add))


@issuers.command("list")
@project_option
@json_option
def list_(project_id: str | None, as_json: bool) -> None:
    """List the issuers that a project trusts."""

    async def _list(broker: Broker) -> list[dict[str, object]]:
        return [
            {
                "id": row.id,
                "issuer": row.issuer,
                "audience": row.audience,
                "userClaim": row.user_claim,
                "tenantClaim": row.tenant_claim,
                "machinesWithoutUser": row.machines_without_user,
                "mcp": row.mcp,
                "loginClientId": row.login_client_id,
                "hasLoginClientSecret": row.login_client_secret is not None,
                "jwksUrl": row.jwks_url,
            }
            for row in await list_issuers(broker, await the_project(broker, project_id))
        ]

    print_rows(run(_list), as_json=as_json)


@issuers.command()
@project_option
@click.argument("issuer_id")
def remove(project_id: str | None, issuer_id: str) -> None:
    """Trust an issuer no longer, within 5 seconds everywhere."""

    async def _remove(broker: Broker) -> None:
        await delete_issuer(broker, await the_project(broker, project_id), issuer_id)

    run(_remove)
    click.echo(f"{issuer_id}  removed")
