//! The one table from what went wrong to what the client is told.

use elcache_engine::{SparseError, WriteError};
use elcache_protocol::{Reply, Status};

/// Why a request ends without what it wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: Status,
    /// What happened, and what to do about it.
    pub(crate) message: &'static str,
    /// Of the value, where that helps.
    pub(crate) size: Option<u64>,
    /// Percent of the value that are there.
    pub(crate) available: Option<u8>,
}

impl Refused {
    pub(crate) fn new(status: Status, message: &'static str) -> Self {
        Self { status, message, size: None, available: None }
    }

    pub(crate) fn miss() -> Self {
        Self::new(Status::NotFound, "No value is stored under this key.")
    }

    pub(crate) fn busy() -> Self {
        Self::new(Status::Busy, "The node is busy at the moment. Ask again a little later.")
    }

    pub(crate) fn timeout() -> Self {
        Self::new(Status::Timeout, "The request was not done within the time that it had.")
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(Status::Cancelled, "The client gave the request up.")
    }

    pub(crate) fn internal() -> Self {
        Self::new(Status::Internal, "The node failed at this. Its log says more.")
    }

    pub(crate) fn partial(size: u64, available: u8) -> Self {
        let message =
            "Only a part of what was asked for is still cached. Store the value again, or ask for less.";
        Self { size: Some(size), available: Some(available), ..Self::new(Status::Partial, message) }
    }

    pub(crate) fn behind_the_end(size: u64) -> Self {
        Self { size: Some(size), ..Self::new(Status::Range, "The offset lies behind the end of the value.") }
    }

    /// A read that had begun cannot go on.
    pub(crate) fn evicted() -> Self {
        Self::new(Status::Partial, "A part of the value went while it was being read. Ask again.")
    }

    pub(crate) fn reply(&self) -> Reply<'static> {
        let available = self.available.map(u64::from);
        Reply { size: self.size, available, ..Reply::error(self.status, self.message) }
    }
}

impl From<WriteError> for Refused {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConditionFailed => Self::new(Status::Condition, "The key has a value already."),
            WriteError::OverLimit => {
                Self::new(Status::ValueTooLarge, "The value is larger than limits.value_size allows.")
            }
            WriteError::DoesNotFit => Self::new(
                Status::NoRoom,
                "The value is larger than the tiers that may keep it. Give the node more room.",
            ),
            WriteError::Busy => Self::busy(),
            WriteError::DigestMismatch => {
                Self::new(Status::Invalid, "The value has not the digest it should have.")
            }
            WriteError::WrongLength => {
                Self::new(Status::Invalid, "The data are not as long as announced. Nothing was stored.")
            }
            // What it left is not known.
            WriteError::Failed => Self::new(
                Status::Internal,
                "The value could not be written to the disk. The node's log and /health tell more.",
            ),
        }
    }
}

impl From<SparseError> for Refused {
    fn from(error: SparseError) -> Self {
        match error {
            SparseError::NoUpload => {
                Self::new(Status::NotFound, "No upload of this key is open. SPARSE_OPEN opens one.")
            }
            SparseError::OtherUpload => Self::new(Status::Conflict, "Another upload of this key is open."),
            SparseError::AlreadyOpen => Self::new(
                Status::Conflict,
                "An upload of this key is open already. Finalize it, or give it up.",
            ),
            SparseError::TooManyUploads => Self::new(
                Status::Busy,
                "As many uploads are open as limits.uploads allows. Ask again when one of them has ended.",
            ),
            SparseError::TooManyRanges => Self::new(
                Status::NoRoom,
                "What is written consists of too many separate ranges. Write what is between them.",
            ),
            SparseError::OutOfBounds => {
                Self::new(Status::Invalid, "The range does not lie within the upload's size.")
            }
            SparseError::Incomplete(_) => Self::new(Status::Incomplete, "Not every byte has been written."),
            SparseError::Write(WriteError::DoesNotFit) => Self::new(
                Status::NoRoom,
                "Uploads hold as much of the tiers as they may. Let one of them end, or give the node more room.",
            ),
            SparseError::Write(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use elcache_engine::Missing;

    use super::*;

    #[test]
    fn every_failed_write_has_its_status() {
        let table = [
            (WriteError::ConditionFailed, Status::Condition),
            (WriteError::OverLimit, Status::ValueTooLarge),
            (WriteError::DoesNotFit, Status::NoRoom),
            (WriteError::Busy, Status::Busy),
            (WriteError::Failed, Status::Internal),
            (WriteError::DigestMismatch, Status::Invalid),
            (WriteError::WrongLength, Status::Invalid),
        ];
        for (error, status) in table {
            assert_eq!(Refused::from(error).status, status);
            assert_eq!(Refused::from(SparseError::Write(error)).status, status);
        }
    }

    #[test]
    fn every_failed_step_of_an_upload_has_its_status() {
        let table = [
            (SparseError::NoUpload, Status::NotFound),
            (SparseError::OtherUpload, Status::Conflict),
            (SparseError::AlreadyOpen, Status::Conflict),
            (SparseError::TooManyUploads, Status::Busy),
            (SparseError::TooManyRanges, Status::NoRoom),
            (SparseError::OutOfBounds, Status::Invalid),
            (SparseError::Incomplete(Missing::default()), Status::Incomplete),
        ];
        for (error, status) in table {
            assert_eq!(Refused::from(error).status, status);
        }
    }

    #[test]
    fn what_is_partly_there_says_how_much_of_it() {
        let reply = Refused::partial(100, 42).reply();
        assert_eq!((reply.status, reply.size, reply.available), (Status::Partial, Some(100), Some(42)));
        assert!(reply.message.is_some());
    }
}
