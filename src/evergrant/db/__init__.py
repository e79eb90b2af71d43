"""The store: one file per table. Importing this package makes `Base.metadata` complete."""

from evergrant.db.access_policy import AccessPolicy
from evergrant.db.activity import Activity, GrantCount
from evergrant.db.agent_session import AgentSession
from evergrant.db.app_logo import AppLogo
from evergrant.db.app_test import AppTest
from evergrant.db.approval import Approval
from evergrant.db.audit_checkpoint import AuditCheckpoint
from evergrant.db.audit_event import AuditEvent
from evergrant.db.authorization_request import AuthorizationRequest
from evergrant.db.base import Base
from evergrant.db.branding import Branding
from evergrant.db.browser_login import BrowserLogin
from evergrant.db.call_record import CallRecord
from evergrant.db.console_session import ConsoleCode, ConsoleDeparture, ConsoleSession
from evergrant.db.data_key import DataKeyRow
from evergrant.db.grant import Grant, GrantStatus
from evergrant.db.grant_directory import GrantDirectory
from evergrant.db.grant_event import GrantEvent
from evergrant.db.grant_use import GrantUse
from evergrant.db.holder import Holder
from evergrant.db.management_key import ManagementKey
from evergrant.db.outbound_app import OutboundApp
from evergrant.db.portal_session import PortalSession
from evergrant.db.project import Project
from evergrant.db.revocation import Revocation
from evergrant.db.schema_floor import SchemaFloor
from evergrant.db.trusted_issuer import TrustedIssuer
from evergrant.db.webhook import Webhook, WebhookDelivery

__all__ = [
    "AccessPolicy",
    "Activity",
    "AgentSession",
    "AppLogo",
    "AppTest",
    "Approval",
    "AuditCheckpoint",
    "AuditEvent",
    "AuthorizationRequest",
    "Base",
    "Branding",
    "BrowserLogin",
    "CallRecord",
    "ConsoleCode",
    "ConsoleDeparture",
    "ConsoleSession",
    "DataKeyRow",
    "Grant",
    "GrantCount",
    "GrantDirectory",
    "GrantEvent",
    "GrantStatus",
    "GrantUse",
    "Holder",
    "ManagementKey",
    "OutboundApp",
    "PortalSession",
    "Project",
    "Revocation",
    "SchemaFloor",
    "TrustedIssuer",
    "Webhook",
    "WebhookDelivery",
]
