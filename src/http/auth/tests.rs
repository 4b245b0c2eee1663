//! Tests of token verification. The keys in `test_keys/` are used only here.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, encode};
use serde_json::{Value, json};

use super::*;
use crate::config::Secret;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const RSA: (&[u8], &[u8]) = (include_bytes!("test_keys/rsa.private.pem"), include_bytes!("test_keys/rsa.public.pem"));
const EC: (&[u8], &[u8]) = (include_bytes!("test_keys/ec.private.pem"), include_bytes!("test_keys/ec.public.pem"));
const ED: (&[u8], &[u8]) = (include_bytes!("test_keys/ed.private.pem"), include_bytes!("test_keys/ed.public.pem"));

/// 2026-09-07T00:00:00Z, in seconds since 1970.
const NOW_S: i64 = 1_788_739_200;
const NOW: i64 = NOW_S * 1_000_000;
const SECOND: i64 = 1_000_000;

fn config() -> Auth {
    Auth {
        hs256_secret: Some(Secret::from(SECRET.to_owned())),
        hs256_secret_previous: None,
        public_keys: None,
        issuer: "windfall".to_owned(),
        audience: "shop".to_owned(),
        leeway: Duration::from_secs(5),
    }
}

fn by_secret() -> Verifier {
    Verifier::with(&config(), None).unwrap()
}

fn by_pem(pem: &[u8]) -> Verifier {
    let config = Auth { hs256_secret: None, ..config() };
    Verifier::with(&config, Some(Public::One(Arc::new(Key::from_pem(pem).unwrap())))).unwrap()
}

fn claims() -> Value {
    json!({"iss": "windfall", "aud": "shop", "sub": "ada", "role": "customer", "exp": NOW_S + 60})
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn signed(claims: &Value) -> String {
    signed_with(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes()))
}

fn signed_with(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    format!("Bearer {}", encode(header, claims, key).unwrap())
}

/// Makes a token with any header and signature, as a forger can.
fn forged(header: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("Bearer {}.{}.{signature}", part(header), part(&claims()))
}

async fn verify(claims: &Value) -> Result<Token, AuthError> {
    by_secret().verify(&signed(claims), NOW).await
}

#[tokio::test]
async fn a_good_token_tells_role_and_subject() {
    for role in [Role::Customer, Role::Storefront, Role::Admin] {
        let token = verify(&claims_with("role", json!(role.name()))).await.unwrap();
        assert_eq!(token, Token { role, subject: "ada".into(), expires_at: NOW + 65 * SECOND });
    }
    assert!(verify(&claims_with("aud", json!(["other", "shop"]))).await.is_ok());
}

/// During a rotation, tokens of both secrets are accepted, again and again. A former secret is worth nothing afterwards.
#[tokio::test]
async fn a_previous_secret_verifies_as_well() {
    const OLD: &str = "fedcba9876543210fedcba9876543210";
    let during = Auth { hs256_secret_previous: Some(Secret::from(OLD.to_owned())), ..config() };
    let (during, after) = (Verifier::with(&during, None).unwrap(), by_secret());
    let header = Header::new(Algorithm::HS256);
    let old = signed_with(&header, &claims(), &EncodingKey::from_secret(OLD.as_bytes()));
    let other = signed_with(&header, &claims(), &EncodingKey::from_secret(b"another secret of 32 bytes or so"));
    for _ in 0..2 {
        assert!(during.verify(&old, NOW).await.is_ok());
        assert!(during.verify(&signed(&claims()), NOW).await.is_ok());
        assert_eq!(during.verify(&other, NOW).await, Err(AuthError::Signature));
        assert_eq!(after.verify(&old, NOW).await, Err(AuthError::Signature));
    }
    let ended = signed_with(&header, &claims_with("exp", json!(NOW_S - 60)), &EncodingKey::from_secret(OLD.as_bytes()));
    assert_eq!(during.verify(&ended, NOW).await, Err(AuthError::Expired));
}

#[tokio::test]
async fn each_required_claim_must_be_there() {
    for name in ["iss", "aud", "sub", "exp", "role"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(verify(&claims).await, Err(AuthError::Claim(name)));
        assert_eq!(verify(&claims_with(name, Value::Null)).await, Err(AuthError::Claim(name)));
    }
}

#[tokio::test]
async fn wrong_claims_are_refused() {
    for (name, value) in [
        ("iss", json!("windfall2")),
        ("iss", json!("")),
        ("aud", json!("shop2")),
        ("aud", json!([])),
        ("aud", json!(["other"])),
        ("sub", json!("")),
        ("sub", json!("x".repeat(201))),
        ("sub", json!("é".repeat(101))),
        ("sub", json!("a\u{0}b")),
        ("role", json!("root")),
        ("role", json!("Admin")),
        ("role", json!("")),
        ("exp", json!(-1)),
        ("exp", json!(1e300)),
        ("exp", json!(u64::MAX)),
        ("nbf", json!(-5)),
        ("typ", json!("Refresh")),
        ("typ", json!("ID")),
    ] {
        assert_eq!(verify(&claims_with(name, value.clone())).await, Err(AuthError::Claim(name)), "{name}: {value}");
    }
    for (name, value) in
        [("exp", json!("soon")), ("sub", json!(5)), ("iss", json!(["windfall"])), ("role", json!(["admin"]))]
    {
        assert_eq!(verify(&claims_with(name, value.clone())).await, Err(AuthError::Malformed), "{name}: {value}");
    }
    assert!(verify(&claims_with("sub", json!("x".repeat(200)))).await.is_ok());
    assert!(verify(&claims_with("typ", json!("Bearer"))).await.is_ok());
}

#[tokio::test]
async fn a_token_holds_from_nbf_to_exp_give_or_take_the_leeway() {
    let verifier = by_secret();
    let token = signed(&json!({
        "iss": "windfall", "aud": "shop", "sub": "ada", "role": "customer", "nbf": NOW_S, "exp": NOW_S + 60,
    }));
    let at = async |offset: i64| verifier.verify(&token, NOW + offset).await.map(|token| token.expires_at);
    assert_eq!(at(-5 * SECOND - 1).await, Err(AuthError::NotYetValid));
    assert_eq!(at(-5 * SECOND).await, Ok(NOW + 65 * SECOND));
    assert_eq!(at(65 * SECOND - 1).await, Ok(NOW + 65 * SECOND));
    assert_eq!(at(65 * SECOND).await, Err(AuthError::Expired));

    let fraction = verify(&claims_with("exp", json!(1_788_739_200.25))).await.unwrap();
    assert_eq!(fraction.expires_at, NOW + 250_000 + 5 * SECOND);
}

#[tokio::test]
async fn only_access_tokens_are_accepted() {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let verify_typ = async |typ: Option<&str>| {
        let header = Header { typ: typ.map(str::to_owned), ..Header::new(Algorithm::HS256) };
        by_secret().verify(&signed_with(&header, &claims(), &key), NOW).await
    };
    for typ in [None, Some("JWT"), Some("jwt"), Some("at+jwt")] {
        assert!(verify_typ(typ).await.is_ok(), "{typ:?}");
    }
    for typ in ["rt+jwt", "refresh", "logout+jwt", ""] {
        assert_eq!(verify_typ(Some(typ)).await, Err(AuthError::Malformed), "{typ}");
    }
}

#[tokio::test]
async fn unsigned_and_foreign_signatures_are_refused() {
    let verifier = by_secret();
    for alg in ["none", "None", "NONE", ""] {
        assert_eq!(verifier.verify(&forged(&json!({ "alg": alg }), ""), NOW).await, Err(AuthError::Malformed));
    }
    assert_eq!(verifier.verify(&forged(&json!({"alg": "HS256"}), ""), NOW).await, Err(AuthError::Signature));

    let other = EncodingKey::from_secret(b"another secret of thirty-two bytes");
    let header = Header::new(Algorithm::HS256);
    assert_eq!(verifier.verify(&signed_with(&header, &claims(), &other), NOW).await, Err(AuthError::Signature));
    // The secret is right, but the algorithm is not HS256.
    let header = Header::new(Algorithm::HS512);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    assert_eq!(verifier.verify(&signed_with(&header, &claims(), &key), NOW).await, Err(AuthError::Signature));

    let good = signed(&claims());
    let (message, _) = good.rsplit_once('.').unwrap();
    let tampered = format!("{message}.{}", "A".repeat(43));
    assert_eq!(verifier.verify(&tampered, NOW).await, Err(AuthError::Signature));
}

#[tokio::test]
async fn public_keys_verify_their_own_algorithm_only() {
    let key_pairs = [
        (Algorithm::RS256, RSA, EncodingKey::from_rsa_pem(RSA.0).unwrap()),
        (Algorithm::ES256, EC, EncodingKey::from_ec_pem(EC.0).unwrap()),
        (Algorithm::EdDSA, ED, EncodingKey::from_ed_pem(ED.0).unwrap()),
    ];
    for (algorithm, (_, public), _) in &key_pairs {
        let verifier = by_pem(public);
        for (signed_by, _, private) in &key_pairs {
            let token = signed_with(&Header::new(*signed_by), &claims(), private);
            assert_eq!(verifier.verify(&token, NOW).await.is_ok(), signed_by == algorithm);
        }
        // A well-known attack uses the public key, which everybody has, as the secret of HS256.
        let token = signed_with(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(public));
        assert_eq!(verifier.verify(&token, NOW).await, Err(AuthError::Signature));
    }
    let other_hash = signed_with(&Header::new(Algorithm::RS512), &claims(), &key_pairs[0].2);
    assert_eq!(by_pem(RSA.1).verify(&other_hash, NOW).await, Err(AuthError::Signature));
}

#[test]
fn only_public_keys_of_good_length_are_taken() {
    for (private, public) in [RSA, EC, ED] {
        assert!(Key::from_pem(public).is_some());
        assert!(Key::from_pem(private).is_none());
    }
    assert!(Key::from_pem(b"").is_none());
    assert!(Key::from_pem(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").is_none());
}

#[tokio::test]
async fn keys_inside_the_token_are_ignored() {
    let own = EncodingKey::from_ec_pem(EC.0).unwrap();
    let mut header = Header::new(Algorithm::ES256);
    header.jwk = Some(Jwk::from_encoding_key(&own, Algorithm::ES256).unwrap());
    header.jku = Some("https://forger.example/keys".to_owned());
    header.x5u = header.jku.clone();
    let token = signed_with(&header, &claims(), &own);
    assert_eq!(by_pem(RSA.1).verify(&token, NOW).await, Err(AuthError::Signature));

    let critical = Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(Algorithm::HS256) };
    let token = signed_with(&critical, &claims(), &EncodingKey::from_secret(SECRET.as_bytes()));
    assert_eq!(by_secret().verify(&token, NOW).await, Err(AuthError::Malformed));
}

#[tokio::test]
async fn exactly_one_bearer_header_is_read() {
    let verifier = by_secret();
    let good = signed(&claims());
    let authenticate = async |values: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        verifier.authenticate(&headers, NOW).await
    };
    assert_eq!(authenticate(&[]).await, Ok(None));
    assert_eq!(authenticate(&[good.as_bytes()]).await.unwrap().unwrap().subject.as_ref(), "ada");
    assert!(authenticate(&[good.replace("Bearer", "bearer").as_bytes()]).await.is_ok());
    assert_eq!(authenticate(&[good.as_bytes(), good.as_bytes()]).await, Err(AuthError::Header));
    for value in ["", "Bearer", "Basic YTpi", "Bearer\u{e9} x"] {
        assert_eq!(authenticate(&[value.as_bytes()]).await, Err(AuthError::Header), "{value}");
    }
    for value in ["Bearer ", "Bearer x", "Bearer a.b", "Bearer a.b.c", "Bearer a.b.c.d", "Bearer  a.b.c"] {
        assert_eq!(authenticate(&[value.as_bytes()]).await, Err(AuthError::Malformed), "{value}");
    }
    let long = signed(&claims_with("extra", json!("x".repeat(TOKEN_BYTES_MAX))));
    assert_eq!(authenticate(&[long.as_bytes()]).await, Err(AuthError::Malformed));
}

#[test]
fn without_keys_there_is_no_verifier() {
    let config = Auth { hs256_secret: None, ..config() };
    let message = Verifier::with(&config, None).err().unwrap().to_string();
    assert!(message.contains("WINDFALL__AUTH__HS256_SECRET") && message.contains("WINDFALL__AUTH__JWKS"), "{message}");
}

// ── Key sets ───────────────────────────────────────────────────────────────────────────────────────────────

/// An issuer that publishes a key set and counts how often the set is loaded.
#[derive(Default)]
struct Issuer {
    answer: Mutex<Vec<u8>>,
    fetches: AtomicUsize,
}

impl Issuer {
    fn publishing(keys: &[Value]) -> Arc<Self> {
        let issuer = Arc::new(Self::default());
        issuer.publish(keys);
        issuer
    }

    fn publish(&self, keys: &[Value]) {
        *self.answer.lock().unwrap() = json!({ "keys": keys }).to_string().into_bytes();
    }

    fn fetch(self: &Arc<Self>) -> jwks::Fetch {
        let issuer = Arc::clone(self);
        Box::new(move || {
            let issuer = Arc::clone(&issuer);
            Box::pin(async move {
                issuer.fetches.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                let answer = issuer.answer.lock().unwrap().clone();
                if answer.is_empty() { Err(JwksError::Status(503)) } else { Ok(answer) }
            })
        })
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    async fn verifier(self: &Arc<Self>) -> Verifier {
        let set = Jwks::new(self.fetch(), NOW).await.unwrap();
        Verifier::with(&Auth { hs256_secret: None, ..config() }, Some(Public::Set(set))).unwrap()
    }
}

fn private(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(RSA.0).unwrap(),
        Algorithm::ES256 => EncodingKey::from_ec_pem(EC.0).unwrap(),
        _ => EncodingKey::from_ed_pem(ED.0).unwrap(),
    }
}

/// The public key of a test key pair, as an entry of a key set.
fn entry(kid: &str, algorithm: Algorithm) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&private(algorithm), algorithm).unwrap()).unwrap();
    jwk["kid"] = json!(kid);
    jwk["use"] = json!("sig");
    jwk
}

fn named(kid: Option<&str>, algorithm: Algorithm) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    signed_with(&header, &claims(), &private(algorithm))
}

#[tokio::test]
async fn a_key_set_is_looked_up_by_kid() {
    let all = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let issuer = Issuer::publishing(&[entry("r", all[0]), entry("e", all[1]), entry("d", all[2])]);
    let verifier = issuer.verifier().await;
    for (kid, algorithm) in ["r", "e", "d"].into_iter().zip(all) {
        assert!(verifier.verify(&named(Some(kid), algorithm), NOW).await.is_ok(), "{kid}");
    }
    // The first token has the name of another key. The second has no name, and the set has several keys.
    for token in [named(Some("e"), Algorithm::RS256), named(None, Algorithm::RS256)] {
        assert_eq!(verifier.verify(&token, NOW + 40 * SECOND).await, Err(AuthError::Signature));
    }
    // An HS256 token is never checked against a public key.
    let token = signed_with(
        &Header { kid: Some("r".to_owned()), ..Header::new(Algorithm::HS256) },
        &claims(),
        &EncodingKey::from_secret(RSA.1),
    );
    assert_eq!(verifier.verify(&token, NOW + 40 * SECOND).await, Err(AuthError::Signature));
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn the_only_key_of_a_set_needs_no_name() {
    let issuer = Issuer::publishing(&[entry("e", Algorithm::ES256)]);
    assert!(issuer.verifier().await.verify(&named(None, Algorithm::ES256), NOW).await.is_ok());
}

#[tokio::test]
async fn a_kid_is_nothing_but_a_name() {
    let issuer = Issuer::publishing(&[entry("e", Algorithm::ES256)]);
    let verifier = issuer.verifier().await;
    for kid in ["../../../../dev/null", "/etc/passwd", "' OR 1=1 --", "https://forger.example/keys", ""] {
        let token = named(Some(kid), Algorithm::ES256);
        assert_eq!(verifier.verify(&token, NOW).await, Err(AuthError::Signature), "{kid}");
    }
}

#[tokio::test]
async fn a_flood_of_unknown_kids_causes_one_fetch_in_half_a_minute() {
    let issuer = Issuer::publishing(&[entry("e", Algorithm::ES256)]);
    let verifier = Arc::new(issuer.verifier().await);
    assert_eq!(issuer.fetches(), 1);
    let flood = async |now: i64| {
        let tasks: Vec<_> = (0..200)
            .map(|n| {
                let verifier = Arc::clone(&verifier);
                tokio::spawn(
                    async move { verifier.verify(&named(Some(&format!("x{n}")), Algorithm::ES256), now).await },
                )
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), Err(AuthError::Signature));
        }
    };
    flood(NOW + jwks::PAUSE - 1).await;
    assert_eq!(issuer.fetches(), 1, "the load at the start counts");
    flood(NOW + jwks::PAUSE).await;
    assert_eq!(issuer.fetches(), 2);
    flood(NOW + jwks::PAUSE + 29 * SECOND).await;
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test]
async fn a_new_key_is_found_and_a_failing_issuer_forgets_none() {
    let issuer = Issuer::publishing(&[entry("old", Algorithm::ES256)]);
    let verifier = issuer.verifier().await;
    let (old, new) = (named(Some("old"), Algorithm::ES256), named(Some("new"), Algorithm::RS256));
    let mut now = NOW + jwks::PAUSE;
    for useless in [&b""[..], b"{}", b"not json", br#"{"keys": []}"#] {
        *issuer.answer.lock().unwrap() = useless.to_vec();
        assert_eq!(verifier.verify(&new, now).await, Err(AuthError::Signature));
        assert!(verifier.verify(&old, NOW).await.is_ok());
        now += jwks::PAUSE;
    }
    assert_eq!(issuer.fetches(), 5);

    issuer.publish(&[entry("new", Algorithm::RS256)]);
    let long = json!({"iss": "windfall", "aud": "shop", "sub": "ada", "role": "customer", "exp": NOW_S + 9_999});
    let header = Header { kid: Some("new".to_owned()), ..Header::new(Algorithm::RS256) };
    assert!(verifier.verify(&signed_with(&header, &long, &private(Algorithm::RS256)), now).await.is_ok());
    // The issuer has removed the old key.
    assert_eq!(verifier.verify(&old, NOW).await, Err(AuthError::Signature));
}

#[tokio::test]
async fn a_set_that_has_aged_is_renewed_beside_the_request() {
    let issuer = Issuer::publishing(&[entry("e", Algorithm::ES256)]);
    let set = Jwks::new(issuer.fetch(), NOW).await.unwrap();
    let find = async |now: i64| set.find(Some("e"), Algorithm::ES256, now).await.is_some();
    assert!(find(NOW + jwks::MAX_AGE - 1).await);
    assert_eq!(issuer.fetches(), 1);
    issuer.publish(&[entry("f", Algorithm::ES256)]);
    assert!(find(NOW + jwks::MAX_AGE).await, "the request does not wait for the reload");
    while find(NOW + jwks::MAX_AGE).await {
        tokio::task::yield_now().await;
    }
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test]
async fn a_known_token_is_refused_when_it_expires_and_when_its_key_is_removed() {
    let issuer = Issuer::publishing(&[entry("e", Algorithm::ES256)]);
    let verifier = issuer.verifier().await;
    let until = |exp: i64| {
        let header = Header { kid: Some("e".to_owned()), ..Header::new(Algorithm::ES256) };
        signed_with(&header, &claims_with("exp", json!(exp)), &private(Algorithm::ES256))
    };
    let (short, long) = (until(NOW_S + 60), until(NOW_S + 9_999));
    for token in [&short, &long] {
        let first = verifier.verify(token, NOW).await;
        assert!(first.is_ok() && verifier.verify(token, NOW).await == first);
    }
    assert_eq!(verifier.verify(&short, NOW + 120 * SECOND).await, Err(AuthError::Expired));
    issuer.publish(&[entry("f", Algorithm::ES256)]);
    while verifier.verify(&long, NOW + jwks::MAX_AGE).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(verifier.verify(&long, NOW + jwks::MAX_AGE).await, Err(AuthError::Signature));
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_take_the_fetch_with_it() {
    let issuer = Issuer::publishing(&[entry("e", Algorithm::ES256)]);
    let set = Jwks::new(issuer.fetch(), NOW).await.unwrap();
    issuer.publish(&[entry("f", Algorithm::ES256)]);
    {
        let mut find = Box::pin(set.find(Some("f"), Algorithm::ES256, NOW + jwks::PAUSE));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(find.as_mut().poll(&mut context).is_pending());
    }
    assert!(set.find(Some("f"), Algorithm::ES256, NOW + jwks::PAUSE + 1).await.is_some());
    assert_eq!(issuer.fetches(), 2);
}

#[test]
fn useless_keys_are_left_out_of_a_set() {
    let parse = |keys: &[Value]| keys::KeySet::parse(json!({ "keys": keys }).to_string().as_bytes());
    let good = entry("good", Algorithm::ES256);
    let with = |name: &str, value: Value| {
        let mut key = entry("bad", Algorithm::ES256);
        key[name] = value;
        key
    };
    let useless = [
        with("use", json!("enc")),
        with("crv", json!("P-384")),
        with("x", json!("AAAA")),
        with("alg", json!("RS256")),
        with("alg", json!("ECDH-ES")),
        json!({"kty": "oct", "kid": "bad", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}),
        json!({"kty": "RSA", "kid": "bad", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "AKP", "kid": "bad", "alg": "ML-DSA-44", "pub": "AAAA"}),
        json!({}),
        json!(5),
    ];
    for bad in &useless {
        assert!(parse(std::slice::from_ref(bad)).is_none(), "{bad}");
        let set = parse(&[bad.clone(), good.clone()]).unwrap();
        assert!(set.find(Some("good"), Algorithm::ES256).is_ok_and(|key| key.is_some()), "{bad}");
        assert!(set.find(Some("bad"), Algorithm::ES256).is_err(), "{bad}");
    }
    assert!(parse(&vec![good.clone(); 100]).is_some());
    assert!(parse(&vec![good; 101]).is_none());
}

#[tokio::test]
async fn a_key_set_is_read_from_a_file_of_bounded_size() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.json");
    let config = Auth { hs256_secret: None, public_keys: Some(PublicKeys::JwksFile(path.clone())), ..config() };
    let setup = async || Verifier::new(&config, NOW).await.map_err(|error| error.to_string());

    let missing = setup().await.err().unwrap();
    assert!(missing.contains("auth.jwks") && missing.contains("cannot be read"), "{missing}");
    let keys = json!({ "keys": [entry("e", Algorithm::ES256)] }).to_string();
    std::fs::write(&path, &keys).unwrap();
    assert!(setup().await.unwrap().verify(&named(Some("e"), Algorithm::ES256), NOW).await.is_ok());
    std::fs::write(&path, keys + &" ".repeat(256 * 1024)).unwrap();
    assert!(setup().await.err().unwrap().contains("larger than 256 KiB"));
}

/// The server is a socket of this machine, so the test needs no other host and no DNS.
#[tokio::test]
async fn a_key_set_is_read_from_a_url_of_bounded_size() {
    use axum::routing::get;
    let keys = json!({ "keys": [entry("e", Algorithm::ES256)] }).to_string();
    let pages = HashMap::from([("/keys", keys.clone()), ("/large", keys + &" ".repeat(256 * 1024))]);
    let router = pages.into_iter().fold(axum::Router::new(), |router, (path, body)| {
        router.route(path, get(move || std::future::ready(body.clone())))
    });
    let router = router.route("/moved", get(async || axum::response::Redirect::temporary("/keys")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let setup = async |path: &str| {
        let public_keys = Some(PublicKeys::JwksUrl(format!("http://user:hidden@{address}{path}")));
        let config = Auth { hs256_secret: None, public_keys, ..config() };
        Verifier::new(&config, NOW).await.map_err(|error| error.to_string())
    };
    assert!(setup("/keys").await.unwrap().verify(&named(Some("e"), Algorithm::ES256), NOW).await.is_ok());
    for (path, reason) in [("/large", "larger than 256 KiB"), ("/none", "status 404"), ("/moved", "status 307")] {
        let message = setup(path).await.err().unwrap();
        assert!(message.contains("auth.jwks") && message.contains(reason), "{message}");
    }
    server.abort();
    assert!(server.await.is_err());
    let message = setup("/keys").await.err().unwrap();
    assert!(message.contains("cannot be fetched") && !message.contains("hidden"), "{message}");
}
