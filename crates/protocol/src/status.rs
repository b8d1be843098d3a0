//! What a request came to.

/// The status of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// It was done.
    Ok = 0,
    /// Not all of it is there.
    Partial = 1,
    /// There is no such value, upload or region.
    NotFound = 2,
    /// The request is wrong.
    Invalid = 3,
    /// The offset lies behind the value's end.
    Range = 4,
    /// The key has more than 8192 bytes.
    KeyTooLarge = 5,
    /// The value is larger than the node takes.
    ValueTooLarge = 6,
    /// The tiers cannot hold it.
    NoRoom = 7,
    /// Not now.
    Busy = 8,
    /// It took too long.
    Timeout = 9,
    /// A condition does not hold.
    Condition = 10,
    /// Something else is in its way.
    Conflict = 11,
    /// Bytes are missing.
    Incomplete = 12,
    /// The client gave it up.
    Cancelled = 13,
    /// This side does not know that.
    Unsupported = 14,
    /// The connection broke the protocol.
    Protocol = 15,
    /// Something went wrong that should not have.
    Internal = 16,
}

impl Status {
    /// All of them, each at its number.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Partial,
        Self::NotFound,
        Self::Invalid,
        Self::Range,
        Self::KeyTooLarge,
        Self::ValueTooLarge,
        Self::NoRoom,
        Self::Busy,
        Self::Timeout,
        Self::Condition,
        Self::Conflict,
        Self::Incomplete,
        Self::Cancelled,
        Self::Unsupported,
        Self::Protocol,
        Self::Internal,
    ];

    /// The status of this number; one that is not known is [`Status::Internal`].
    pub fn from_number(number: u64) -> Self {
        let place = usize::try_from(number).ok();
        place.and_then(|place| Self::ALL.get(place)).copied().unwrap_or(Self::Internal)
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self as u64
    }

    /// The word for it, in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Partial => "partial",
            Self::NotFound => "not_found",
            Self::Invalid => "invalid",
            Self::Range => "range",
            Self::KeyTooLarge => "key_too_large",
            Self::ValueTooLarge => "value_too_large",
            Self::NoRoom => "no_room",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Condition => "condition",
            Self::Conflict => "conflict",
            Self::Incomplete => "incomplete",
            Self::Cancelled => "cancelled",
            Self::Unsupported => "unsupported",
            Self::Protocol => "protocol",
            Self::Internal => "internal",
        }
    }
}
