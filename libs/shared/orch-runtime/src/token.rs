//! Bearer tokens: made, compared in constant time, and never shown.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// Bytes of randomness in a made token: 256 bits.
const GENERATED_BYTES: usize = 32;
/// A longer token is a mistake (a whole file, say), not a token.
const MAX_LENGTH: usize = 4096;

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("a token is empty")]
    Empty,
    #[error("a token is longer than {MAX_LENGTH} characters")]
    TooLong,
    #[error("a token holds a space, a control character or a character outside ASCII")]
    BadCharacter,
}

/// The SHA-256 of a token: enough to know it again, useless to whoever reads it.
///
/// Digests are compared instead of the texts, so that neither content nor length shows in the time taken.
#[derive(Clone, Copy)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Of what somebody presents.
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// As it was kept.
    pub const fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are of the same token, in time independent of where they differ.
    pub fn matches(&self, other: &TokenDigest) -> bool {
        bool::from(self.0.ct_eq(&other.0))
    }

    /// How the token may appear in logs.
    pub fn fingerprint(&self) -> String {
        format!("token:{}", hex::encode(&self.0[..3]))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

/// One bearer token. Shows itself only as `token:<first 6 hex digits of its SHA-256>`.
#[derive(Clone)]
pub struct Token {
    secret: String,
    digest: TokenDigest,
}

impl Token {
    /// Accepts what can travel in a header.
    pub fn new(secret: &str) -> Result<Self, TokenError> {
        match secret {
            "" => Err(TokenError::Empty),
            long if long.len() > MAX_LENGTH => Err(TokenError::TooLong),
            odd if !odd.bytes().all(|byte| byte.is_ascii_graphic()) => Err(TokenError::BadCharacter),
            good => Ok(Self { secret: good.to_owned(), digest: TokenDigest::of(good.as_bytes()) }),
        }
    }

    /// A new token of 256 random bits, as 64 hexadecimal digits.
    pub fn generate() -> Result<Self, getrandom::Error> {
        Self::generate_with("")
    }

    /// A new token of 256 random bits behind a prefix, by which people and scanners know what it is.
    pub fn generate_with(prefix: &str) -> Result<Self, getrandom::Error> {
        let mut random = [0; GENERATED_BYTES];
        getrandom::fill(&mut random)?;
        let secret = format!("{prefix}{}", hex::encode(random));
        Ok(Self { digest: TokenDigest::of(secret.as_bytes()), secret })
    }

    /// The secret itself: for the file that keeps it and the request that sends it, never for a log.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// How the token may appear in logs.
    pub fn fingerprint(&self) -> String {
        self.digest.fingerprint()
    }

    pub fn digest(&self) -> &TokenDigest {
        &self.digest
    }

    /// Whether this is the token presented, in time independent of where they differ.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.digest.matches(&TokenDigest::of(presented))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

/// The tokens valid at one time: several while they are being rotated, none in an open home.
#[derive(Clone, Debug, Default)]
pub struct TokenSet {
    tokens: Vec<Token>,
}

impl TokenSet {
    /// Reads a list separated by commas or line ends. Empty entries and lines that begin with `#` are passed
    /// over.
    pub fn parse(list: &str) -> Result<Self, TokenError> {
        let tokens = list
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(Token::new)
            .collect::<Result<_, _>>()?;
        Ok(Self { tokens })
    }

    pub fn push(&mut self, token: Token) {
        self.tokens.push(token);
    }

    /// No token exists: the home is open.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter()
    }

    /// The token that this process itself sends to others.
    pub fn first(&self) -> Option<&Token> {
        self.tokens.first()
    }

    /// The token presented, if it is valid. All tokens are compared, each in constant time.
    pub fn find(&self, presented: &[u8]) -> Option<&Token> {
        let presented = TokenDigest::of(presented);
        self.tokens.iter().fold(
            None,
            |found, token| {
                if token.digest.matches(&presented) { Some(token) } else { found }
            },
        )
    }

    /// The length of the shortest token.
    pub fn shortest(&self) -> Option<usize> {
        self.tokens.iter().map(|token| token.secret.len()).min()
    }
}

impl Extend<Token> for TokenSet {
    fn extend<I: IntoIterator<Item = Token>>(&mut self, tokens: I) {
        self.tokens.extend(tokens);
    }
}

/// What the caller presents: `Authorization: Bearer …`, else `x-api-key`.
pub fn presented_token(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| strip_scheme(value.as_bytes()));
    bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii()))
}

/// The scheme's name is case-insensitive by RFC 9110.
fn strip_scheme(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn every_token_of_a_rotation_is_valid() {
        let set = TokenSet::parse("old-token, new-token,\n# a comment\nthird").unwrap();
        for valid in ["old-token", "new-token", "third"] {
            assert_eq!(set.find(valid.as_bytes()).unwrap().secret(), valid);
        }
        for wrong in ["", "old-toke", "old-token ", "# a comment", "OLD-TOKEN"] {
            assert!(set.find(wrong.as_bytes()).is_none(), "{wrong:?}");
        }
        assert_eq!(set.first().unwrap().secret(), "old-token");
        assert_eq!(set.shortest(), Some(5));
    }

    #[test]
    fn an_empty_set_accepts_nothing() {
        let set = TokenSet::parse(" , ,\n").unwrap();
        assert!(set.is_empty());
        assert!(set.find(b"").is_none());
    }

    #[test]
    fn a_token_never_shows_itself() {
        let token = Token::new("hello").unwrap();
        // SHA-256 of "hello" begins 2cf24d.
        assert_eq!(token.fingerprint(), "token:2cf24d");
        assert_eq!(format!("{token:?}"), "token:2cf24d");
        assert!(!format!("{:?}", TokenSet::parse("hello").unwrap()).contains("hello"));
    }

    #[test]
    fn made_tokens_have_256_bits_and_differ() {
        let (one, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_eq!(one.secret().len(), 64);
        assert_ne!(one.secret(), other.secret());
        assert!(one.matches(one.secret().as_bytes()));
        assert!(!one.matches(other.secret().as_bytes()));
    }

    #[test]
    fn what_cannot_travel_in_a_header_is_no_token() {
        assert_eq!(Token::new("").unwrap_err(), TokenError::Empty);
        assert_eq!(Token::new("a b").unwrap_err(), TokenError::BadCharacter);
        assert_eq!(Token::new("a\u{7}").unwrap_err(), TokenError::BadCharacter);
        assert_eq!(Token::new(&"a".repeat(MAX_LENGTH + 1)).unwrap_err(), TokenError::TooLong);
    }

    #[test]
    fn a_token_is_presented_as_bearer_or_as_api_key() {
        assert_eq!(presented_token(&headers(&[("authorization", "Bearer abc")])), Some(&b"abc"[..]));
        assert_eq!(presented_token(&headers(&[("authorization", "bearer  abc")])), Some(&b"abc"[..]));
        assert_eq!(presented_token(&headers(&[("x-api-key", "abc")])), Some(&b"abc"[..]));
        assert_eq!(presented_token(&headers(&[("authorization", "Basic abc")])), None);
        assert_eq!(presented_token(&headers(&[])), None);
    }
}
