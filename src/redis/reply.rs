//! What a server answers.

use std::borrow::Cow;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EngineReply {
    Nil,
    Number(i64),
    Bytes(Vec<u8>),
    List(Vec<EngineReply>),
}

impl EngineReply {
    pub(super) fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The same for a text in any encoding: what cannot be read of it is replaced.
    pub(super) fn lossy_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Bytes(bytes) => Some(String::from_utf8_lossy(bytes)),
            _ => None,
        }
    }

    /// What a script has answered to the command with this nonce; `None` for the answer to another.
    pub(super) fn answer_to(&self, nonce: &str) -> Option<&[EngineReply]> {
        let (last, answer) = self.list()?.split_last()?;
        (last.text() == Some(nonce)).then_some(answer)
    }

    pub(super) fn list(&self) -> Option<&[EngineReply]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }
}
