"""OAuth 2 and OpenID Connect, as providers speak them. Only here: authlib, joserfc and the HTTP client."""
