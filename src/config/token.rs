//! The secret of those who may change something over the admin server.

use std::fmt;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use super::raw::MAX_FILE_BYTES;
use crate::os::read_regular;

/// Shortest token: 16 characters that were drawn at random cannot be guessed.
const MIN_BYTES: usize = 16;

/// Longest token: it has to fit into the head of a request.
const MAX_BYTES: usize = 1024;

/// A bearer token: 16 to 1024 visible ASCII characters.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(Arc<str>);

/// Why a file gives no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The operating system did not give the file.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What stands there is too short or too long.
    #[error(
        "a token has {MIN_BYTES} to {MAX_BYTES} characters, white space at both ends left out, \
         this one has {bytes}"
    )]
    Length {
        /// Its bytes, at most one more than are allowed for a whole file.
        bytes: usize,
    },
    /// A header line cannot carry it.
    #[error("a token is one line of visible ASCII characters, without spaces")]
    Characters,
}

impl AdminToken {
    /// Reads the token in the file at `path`, without white space at both ends.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        Self::parse(&read_regular(path, MAX_FILE_BYTES as u64)?)
    }

    fn parse(bytes: &[u8]) -> Result<Self, TokenError> {
        let bytes = bytes.trim_ascii();
        if !(MIN_BYTES..=MAX_BYTES).contains(&bytes.len()) {
            let bytes = bytes.len();
            return Err(TokenError::Length { bytes });
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Self(text.into())),
            _ => Err(TokenError::Characters),
        }
    }

    /// Whether `presented` is this token. The time it takes tells the token's length and nothing
    /// else of it.
    pub fn is(&self, presented: &[u8]) -> bool {
        let token = self.0.as_bytes();
        let pairs = token.iter().zip(presented);
        let differing = pairs.fold(0, |differing, (a, b)| black_box(differing | (a ^ b)));
        token.len() == presented.len() && differing == 0
    }

    /// What stands in an `Authorization` header.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for AdminToken {
    /// Shows the length alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminToken({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn a_token_is_itself_and_nothing_else() {
        let token = AdminToken::parse(format!("\n {TOKEN}\r\n").as_bytes()).unwrap();
        assert!(token.is(TOKEN.as_bytes()));
        for other in [
            "",
            "0123456789abcde",
            "0123456789abcdeF",
            "0123456789abcdef0",
            "1123456789abcdef",
        ] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        assert!(!format!("{token:?}").contains("0123"));
    }

    #[test]
    fn what_can_be_guessed_or_not_sent_is_no_token() {
        for text in [
            "",
            "0123456789abcde",
            "               \n                ",
            "0123456789abcdef 0",
            "0123456789abcdef\n0123456789abcdef",
            "0123456789abcdefö",
            &"x".repeat(MAX_BYTES + 1),
        ] {
            assert!(AdminToken::parse(text.as_bytes()).is_err(), "{text}");
        }
        let not_text = [&[0xff][..], TOKEN.as_bytes()].concat();
        assert!(AdminToken::parse(&not_text).is_err());
    }
}
