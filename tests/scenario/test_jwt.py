"""The plugin jwt: which tokens hold, and who shares what is stored."""
import base64
import hashlib
import hmac
import json
import os
import subprocess
import time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from harness import eventually, weir_binary

PLUGIN = os.path.join(os.path.dirname(weir_binary()), "plugins", "jwt.so")
FRESH = [("Cache-Control", "max-age=60")]
SECRET = b"s" * 64
RSA = rsa.generate_private_key(65537, 2048)
EC = {256: ec.generate_private_key(ec.SECP256R1()), 384: ec.generate_private_key(ec.SECP384R1()),
      512: ec.generate_private_key(ec.SECP521R1())}
ED = ed25519.Ed25519PrivateKey.generate()
HASH = {256: hashes.SHA256(), 384: hashes.SHA384(), 512: hashes.SHA512()}
ALL = ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"]


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(n, size=None):
    return b64(n.to_bytes(size or (n.bit_length() + 7) // 8, "big"))


def jwk_of(key, **more):
    if isinstance(key, bytes):
        return {"kty": "oct", "k": b64(key), **more}
    public = key.public_key()
    if key is ED:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes(Encoding.Raw, PublicFormat.Raw)), **more}
    numbers = public.public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e), **more}
    size = (public.curve.key_size + 7) // 8
    return {"kty": "EC", "crv": "P-%d" % public.curve.key_size, "x": number(numbers.x, size),
            "y": number(numbers.y, size), **more}


def sign(alg, data):
    bits = int(alg[2:]) if alg != "EdDSA" else 0
    if alg == "EdDSA":
        return ED.sign(data)
    if alg[:2] == "HS":
        return hmac.new(SECRET, data, getattr(hashlib, "sha%d" % bits)).digest()
    if alg[:2] == "RS":
        return RSA.sign(data, padding.PKCS1v15(), HASH[bits])
    r, s = utils.decode_dss_signature(EC[bits].sign(data, ec.ECDSA(HASH[bits])))
    size = (EC[bits].curve.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def token(alg="HS256", head=None, signature=None, **claims):
    claims = {k: v for k, v in {"exp": int(time.time()) + 600, **claims}.items() if v is not None}
    text = "%s.%s" % (b64(json.dumps({"alg": alg, **(head or {})}).encode()), b64(json.dumps(claims).encode()))
    return "Bearer %s.%s" % (text, b64(sign(alg, text.encode()) if signature is None else signature))


@pytest.fixture
def jwks(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [
        jwk_of(SECRET), jwk_of(RSA, kid="r", use="sig"), jwk_of(EC[256]), jwk_of(EC[384]), jwk_of(EC[512], alg="ES512"),
        jwk_of(ED), {"kty": "new"}, jwk_of(RSA, use="enc"), jwk_of(RSA, alg="RSA-OAEP")]}))
    return path


def with_jwt(jwks, routes, **options):
    return {"plugins": [{"name": "jwt", "file": PLUGIN, "options": {"jwks_file": str(jwks), "algorithms": ALL, **options}}],
            "routes": routes}


def test_tokens_that_hold_pass_and_all_others_do_not(origin, weir, jwks):
    origin.on("/a", body=b"a")
    w = weir(**with_jwt(jwks, [{"path": "/**", "plugins": {"jwt": True}}], issuer="us", audience=["api", "web"]))

    def get(given):
        return w.get("/a", [("Authorization", given)])
    good = {"iss": "us", "aud": "api"}
    for alg in ALL:
        assert get(token(alg, **good)).status == 200, alg
    assert get(token("RS256", head={"kid": "r"}, aud=["x", "web"], iss="us")).status == 200
    seen = origin.count("/a")
    now = int(time.time())
    public = RSA.public_key().public_numbers().n.to_bytes(256, "big")
    forged = token("HS256", signature=b"x", **good)
    text = forged[7:].rpartition(".")[0]
    bad = [("none", "Bearer " + text.replace(b64(b'{"alg": "HS256"}'), b64(b'{"alg": "none"}')) + "."),
           ("unsigned", "Bearer " + text + "."), ("forged", forged),
           ("public key as secret", "Bearer %s.%s" % (text, b64(hmac.new(public, text.encode(), "sha256").digest()))),
           ("cut", token(**good)[:-1]), ("padded", token(**good) + "="), ("two parts", "Bearer a.b"), ("empty", "Bearer "),
           ("other kid", token("RS256", head={"kid": "q"}, **good)), ("crit", token(head={"crit": ["b64"]}, **good)),
           ("expired", token(exp=now - 60, **good)), ("no exp", token(exp=None, **good)), ("text exp", token(exp="9", **good)),
           ("early", token(nbf=now + 60, **good)), ("issuer", token(iss="them", aud="api")), ("no issuer", token(aud="api")),
           ("audience", token(iss="us", aud="them")), ("audiences", token(iss="us", aud=["them", 1])),
           ("basic", "Basic eDp5"), ("long", token(pad="x" * 7000, **good))]
    for name, given in bad:
        got = get(given)
        assert got.status == 401 and got.header("WWW-Authenticate").startswith("Bearer"), name
    assert w.get("/a").header("WWW-Authenticate") == "Bearer"
    assert origin.count("/a") == seen
    assert get(token(exp=now - 10, **good)).status == 200                # leeway


def test_a_token_of_an_algorithm_that_is_not_allowed_does_not_pass(origin, weir, jwks):
    origin.on("/a", body=b"a")
    w = weir(**with_jwt(jwks, [{"path": "/**", "plugins": {"jwt": True}}], algorithms=["ES256"]))
    assert [w.get("/a", [("Authorization", token(alg))]).status for alg in ("ES256", "RS256", "HS256", "ES384")] == [
        200, 401, 401, 401]


def test_what_is_authorized_is_stored_for_each_tenant_and_nobody_else(origin, weir, jwks):
    origin.on("/a", lambda req, conn: conn.respond(200, FRESH, ("%s %s" % (
        req.header("X-Tenant"), bool(req.header("Authorization")))).encode()))
    origin.on("/plain", lambda req, conn: conn.respond(200, FRESH, b"p"))
    w = weir(**with_jwt(jwks, [
        {"path": "/plain", "plugins": {"jwt": {"optional": True}}},
        {"path": "/**", "plugins": {"jwt": {"key": ["tenant"], "tags": ["tenant:#tenant", "role:#roles"],
                                            "forward": ["X-Tenant=tenant"], "strip": True}}}]))

    def get(path="/a", **claims):
        return w.get(path, [("Authorization", token(**claims)), ("X-Tenant", "root")])
    assert get(tenant="t1", sub="u1").body == b"t1 False"
    shared = get(tenant="t1", sub="u2", roles=["x"])
    assert shared.cache_status.hit and shared.body == b"t1 False"
    other = get(tenant="t2", roles=["admin", "ops"])
    assert not other.cache_status.hit and other.body == b"t2 False"
    assert not get(tenant="1").cache_status.hit and not get(tenant=1).cache_status.hit       # a text is no number
    lacks = get(sub="u1")
    assert lacks.status == 403 and lacks.json()["detail"] == "the token has no claim tenant"
    assert w.get("/a").status == 401
    assert w.get("/a", [("Authorization", token(tenant="t1", exp=1))]).status == 401        # though it is stored
    for tag, path in (("role:ops", "t2"), ("tenant:t1", "t1")):
        assert w.api("POST", "/purge", {"tags": [tag]}).json()["objects"] == 1
        assert not get(tenant=path).cache_status.hit
    # Without `key` the rules for authorized requests hold, and those without a token are apart.
    for _ in range(2):
        assert not get("/plain").cache_status.hit
    w.get("/plain")
    assert w.get("/plain").cache_status.hit and not get("/plain").cache_status.hit


def test_claims_that_fit_nowhere_are_refused_whatever_on_error_says(origin, weir, jwks):
    origin.on("/a", lambda req, conn: conn.respond(200, [], (req.header("X-Name") or "").encode()))
    config = with_jwt(jwks, [{"path": "/**", "plugins": {"jwt": {"key": ["name"], "forward": ["X-Name=name"], "tags": ["name"]}}}])
    config["plugins"][0]["on_error"] = "skip"
    w = weir(**config)
    for name, status in ("ann", 200), ("a\r\nX-Name: root", 403), ("a\0", 401), ("", 403):
        got = w.get("/a", [("Authorization", token(name=name)), ("X-Name", "root")])
        assert got.status == status and b"root" not in got.body, name
    assert origin.count("/a") == 1


def test_keys_are_rolled_over_and_judged(origin, weir, jwks, tmp_path):
    origin.on("/a", body=b"a")
    w = weir(**with_jwt(jwks, [{"path": "/**", "plugins": {"jwt": True}}]))

    def replace(text):
        (tmp_path / "next").write_text(text)
        os.rename(tmp_path / "next", jwks)

    def status(alg):
        return w.get("/a", [("Authorization", token(alg))]).status
    assert status("HS256") == 200
    replace("{")
    eventually(lambda: w.log_has("the keys stay as they were"))
    assert status("HS256") == 200
    replace(json.dumps({"keys": [jwk_of(ED)]}))
    eventually(lambda: status("HS256") == 401)
    assert status("EdDSA") == 200
    weak = rsa.generate_private_key(65537, 1024)
    config = tmp_path / "c.yaml"
    config.write_text("origins: {api: {servers: [\"http://127.0.0.1:9\"]}}\nplugins:\n  - name: jwt\n    file: %s\n"
                      "    options: {jwks_file: %s}\nroutes: [{path: /**, plugins: {jwt: {strip: true}}}]\n" % (PLUGIN, jwks))
    for keys, why in [([jwk_of(b"short")], "is a secret of less than 32 bytes"), ([], "has no key for signatures"),
                      ([jwk_of(ED), jwk_of(weak)], "its key 1 is an RSA key of less than 2048 bits"),
                      ([jwk_of(ED, alg="RS256")], "has an alg that is not for its type"),
                      ([{**jwk_of(EC[256]), "x": "AAAA"}], "is no EC key"), ([{**jwk_of(ED), "x": "AA"}], "no key of Ed25519")]:
        jwks.write_text(json.dumps({"keys": keys}))
        got = subprocess.run([weir_binary(), "check", str(config)], capture_output=True, text=True).stdout
        assert ":5:26: plugins[0].options.jwks_file: " in got and why in got, got
    jwks.write_text(json.dumps({"keys": [jwk_of(ED)]}))
    got = subprocess.run([weir_binary(), "check", str(config)], capture_output=True, text=True).stdout
    config.write_text(config.read_text().replace("strip: true", "forward: [Host=tenant]"))
    named = subprocess.run([weir_binary(), "check", str(config)], capture_output=True, text=True).stdout
    assert "routes[0].plugins.jwt.forward: is not of the form FIELD=CLAIM" in named, named
    assert ":6:45: routes[0].plugins.jwt.strip: without `key` what one token got would be stored for all" in got, got
