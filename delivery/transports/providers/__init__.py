"""The providers that can be named in EMAIL_URL, a module each with the same three functions.

``backend(url, session, timeouts)`` gives anymail's backend, whose requests go through the session.
``message(envelope)`` gives what it sends; ValueError where that cannot be made. ``read(headers,
data)`` gives, from an answer's headers and JSON, the provider's name of the message that it took
(None or empty: it did not), and its word for a refusal with the text.
"""
