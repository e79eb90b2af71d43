"""An app as the OpenAPI document shows it: as it is sent, and as it is stored."""

SCOPE = "https://www.googleapis.com/auth/contacts.readonly"
DEFINED = {
    "id": "google-contacts",
    "name": "Google Contacts",
    "clientId": "1234.apps.googleusercontent.com",
    "discoveryUrl": "https://accounts.google.com",
    "defaultScopes": [SCOPE],
    "accessType": "offline",
    "prompt": ["consent"],
}
SECRET = {"clientSecret": "GOCSPX-from-the-provider"}
STORED = {
    **DEFINED,
    "description": "",
    "logo": "",
    "hasClientSecret": True,
    "authorizationUrl": "https://accounts.google.com/o/oauth2/v2/auth",
    "authorizationUrlParams": [],
    "tokenUrl": "https://oauth2.googleapis.com/token",
    "tokenUrlParams": [],
    "revocationUrl": "https://oauth2.googleapis.com/revoke",
    "defaultRedirectUrl": "",
    "callbackDomain": "",
    "callbackUrl": "https://evergrant.example.com/v1/outbound/oauth/callback",
    "pkce": True,
    "appType": "oauth",
    "issuer": "https://accounts.google.com",
    "userinfoUrl": "https://openidconnect.googleapis.com/v1/userinfo",
    "jwksUrl": "https://www.googleapis.com/oauth2/v3/certs",
    "tokenEndpointAuthMethod": "client_secret_post",
    "scopes": [{"value": SCOPE, "description": "See your contacts"}],
    "skipConsentPage": False,
    "requireConfirmation": False,
    "health": {"status": "ok", "reason": "", "since": ""},
    "createdTime": "1741103514",
    "updatedTime": "1741103514",
}
