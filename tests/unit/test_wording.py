"""Text from outside: what must never be repeated, and what may not act where it is shown."""

import time

import pytest

from pipelines.wording import cell, has_credentials, without_secrets

SECRET = "SE/CRET+abc=="


@pytest.mark.parametrize(
    "text",
    [
        f"s3://KEY:{SECRET}@bucket/cube",
        f"GET https://h/x.tif?X-Amz-Credential=K&X-Amz-Signature={SECRET}&X-Amz-Date=1: 403",
        f"https://acct.blob.core.windows.net/c?sv=1&sig={SECRET}",
        f"https://host/x#access_token={SECRET}",
        f"https://user:it's\"{SECRET}@host/x",
        f"/vsicurl/https://user:{SECRET}@host/x.tif",
        f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET};EndpointSuffix=core",
        f"aws_secret_access_key = {SECRET}",
        f'{{"password": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"sig%3D{SECRET}",
    ],
)
def test_what_gives_access_is_taken_out(text):
    assert "SE/CRET" not in without_secrets(text)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("AWS_SECRET_ACCESS_KEY", SECRET, f"invalid key {SECRET!r}"),
        ("AWS_SESSION_TOKEN", SECRET, "https://h/SE%2FCRET%2Babc%3D%3D/x"),
        ("HTTPS_PROXY", f"http://me:{SECRET}@proxy:3128", f"proxy said no to me:{SECRET}"),
        ("PREFECT_API_AUTH_STRING", f"me:{SECRET}", f"401 for me:{SECRET}"),
    ],
)
def test_secrets_of_the_environment_are_not_repeated(monkeypatch, name, value, text):
    monkeypatch.setenv(name, value)
    assert "SE/CRET" not in without_secrets(text)
    assert "SE%2FCRET" not in without_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
        "https://host/page#heading",
        '{"token": null, "token_file": "/home/me/token"}',
        "basic colours, bearer bonds, sigma = 0.5, the secret is out",
        "user@host",
    ],
)
def test_what_gives_no_access_stays(text):
    assert without_secrets(text) == text
    assert not has_credentials(text)


@pytest.mark.parametrize(
    "text", ["https://a:" * 6000, "a" * 60_000 + "://" * 6000, "token" * 12_000, "a_" * 30_000, "://@" * 15_000]
)
def test_no_text_takes_long(text):
    started = time.process_time()
    without_secrets(text)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-2+3", "@SUM(A1)"])
def test_no_cell_is_a_formula(text):
    assert cell(text) == f"'{text}"
    assert [cell(unit) for unit in ("mm", "-", "", "m s-1")] == ["mm", "-", "", "m s-1"]
