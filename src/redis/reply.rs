//! What a server answers.

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

    pub(super) fn list(&self) -> Option<&[EngineReply]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }
}
