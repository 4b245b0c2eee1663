"""Tokens that the server accepts, made without a process for each."""
import base64
import hashlib
import hmac
import json
import pathlib
import time

SECRET = "a-secret-for-measuring-that-is-long-enough"
# The longest run is far shorter.
LIFETIME_SECONDS = 24 * 3600


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(role: str, subject: str) -> str:
    claims = {"role": role, "sub": subject, "iss": "windfall", "aud": "windfall", "exp": int(time.time()) + LIFETIME_SECONDS}
    signed = f'{part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())}.{part(json.dumps(claims).encode())}'
    return f"{signed}.{part(hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256))}"


def write(file: pathlib.Path, role: str, subjects: list[str]) -> pathlib.Path:
    """Writes one token a line."""
    file.write_text("".join(token(role, subject) + "\n" for subject in subjects))
    return file
