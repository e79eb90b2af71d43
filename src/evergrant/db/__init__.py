"""The store: one file per table. Importing this package makes `Base.metadata` complete."""

from evergrant.db.authorization_request import AuthorizationRequest
from evergrant.db.base import Base
from evergrant.db.data_key import DataKeyRow
from evergrant.db.grant import Grant, GrantStatus
from evergrant.db.management_key import ManagementKey
from evergrant.db.outbound_app import OutboundApp
from evergrant.db.project import Project

__all__ = [
    "AuthorizationRequest",
    "Base",
    "DataKeyRow",
    "Grant",
    "GrantStatus",
    "ManagementKey",
    "OutboundApp",
    "Project",
]
