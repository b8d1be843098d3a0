//! What the index knows of a name, and the 16 bytes that it is packed into.

/// What an entry is found by: 128 bits of BLAKE3.
pub(crate) type Name = [u8; 16];

/// Offsets and lengths in the small file are multiples of this.
pub(crate) const SMALL_UNIT: u64 = 8;
/// Offsets and lengths in the bulk file are multiples of this.
pub(crate) const BULK_UNIT: u64 = 4096;
/// The largest [`Entry::heat`].
pub(crate) const HOT: u8 = (1 << HEAT_BITS) - 1;

const HEAT_BITS: u32 = 4;
const USED: u8 = 1 << 4;
const IN_BULK: u8 = 1 << 5;
const PINNED: u8 = 1 << 6;

const HEAD_BITS: u32 = 5;
const PAYLOAD_BITS: u32 = 11;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A whole value.
    Value = 1,
    /// The root of a value in chunks.
    Root = 2,
    /// A page of a chunked value's tree.
    Page = 3,
    /// A chunk.
    Chunk = 4,
    /// What says that a key is deleted.
    Tombstone = 5,
    /// A record that has expired or does not verify: there is nothing under its name, and it hides what is older.
    Dead = 6,
    /// What says that an upload is open.
    Upload = 7,
    /// Bytes of a chunk of a draft.
    Fragment = 8,
    /// What says that a chunk of a draft is there as a whole.
    Filling = 9,
}

impl Kind {
    /// Whether this is what a client stored under a key: these are counted, and these expire.
    pub(crate) fn is_value(self) -> bool {
        matches!(self, Self::Value | Self::Root)
    }

    /// Whether only unfinished uploads have this: as long as it is known, they count on it.
    pub(crate) fn is_staged(self) -> bool {
        matches!(self, Self::Upload | Self::Fragment | Self::Filling)
    }
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of the segment; newer ones have larger numbers.
    pub(crate) segment: u32,
    /// Where in the pair.
    pub(crate) file: InFile,
}

/// Where in a segment a record lies. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InFile {
    /// In the small file; multiples of [`SMALL_UNIT`], below 32 GiB, and shorter than 512 KiB.
    Small { offset: u64, len: u32 },
    /// In the bulk file: a head and, right behind it, the payload; multiples of [`BULK_UNIT`], below 16 TiB, the head
    /// shorter than 128 KiB, the payload than 8 MiB.
    Bulk { offset: u64, head_len: u32, payload_len: u32 },
}

impl Place {
    /// The record's length in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        match self.file {
            InFile::Small { len, .. } => u64::from(len),
            InFile::Bulk { head_len, payload_len, .. } => u64::from(head_len) + u64::from(payload_len),
        }
    }
}

/// What the index knows of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    /// Seconds since 1970, rounded up: the exact time is in the record. 0 is never.
    pub(crate) expires_s: u32,
    /// Read since it was written.
    pub(crate) used: bool,
    /// Reclaiming may not let go of it: an unfinished upload counts on it.
    pub(crate) pinned: bool,
    /// How near it is to being promoted, 0 to [`HOT`].
    pub(crate) heat: u8,
}

impl Entry {
    /// Whether it is a value whose time is over.
    pub(crate) fn is_expired(&self, now_s: u32) -> bool {
        self.kind.is_value() && self.expires_s != 0 && self.expires_s <= now_s
    }
}

/// An [`Entry`] in 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    segment: u32,
    expires_s: u32,
    /// In units of the file.
    offset: u32,
    /// In units of the file: the length, or the payload's above the head's.
    lengths: u16,
    kind: Kind,
    /// The heat, [`USED`], [`IN_BULK`] and [`PINNED`].
    flags: u8,
}

impl Packed {
    /// What fills a node before it is used.
    pub(super) const BLANK: Self =
        Self { segment: 0, expires_s: 0, offset: 0, lengths: 0, kind: Kind::Tombstone, flags: 0 };

    /// Packs; `None` when something is no multiple of its unit, or out of range.
    pub(super) fn pack(entry: &Entry) -> Option<Self> {
        let (offset, lengths, file) = match entry.place.file {
            InFile::Small { offset, len } => {
                (units(offset, SMALL_UNIT, u32::BITS)?, units(len.into(), SMALL_UNIT, u16::BITS)?, 0)
            }
            InFile::Bulk { offset, head_len, payload_len } => {
                let head = units(head_len.into(), BULK_UNIT, HEAD_BITS)?;
                let payload = units(payload_len.into(), BULK_UNIT, PAYLOAD_BITS)?;
                (units(offset, BULK_UNIT, u32::BITS)?, payload << HEAD_BITS | head, IN_BULK)
            }
        };
        let used = if entry.used { USED } else { 0 };
        let pinned = if entry.pinned { PINNED } else { 0 };
        (entry.heat <= HOT).then_some(Self {
            segment: entry.place.segment,
            expires_s: entry.expires_s,
            offset,
            lengths: u16::try_from(lengths).ok()?,
            kind: entry.kind,
            flags: entry.heat | used | file | pinned,
        })
    }

    pub(super) fn unpack(&self) -> Entry {
        Entry {
            kind: self.kind,
            place: self.place(),
            expires_s: self.expires_s,
            used: self.flags & USED != 0,
            pinned: self.is_pinned(),
            heat: self.heat(),
        }
    }

    pub(super) fn place(&self) -> Place {
        let lengths = u32::from(self.lengths);
        let bytes = |units: u32| units * BULK_UNIT as u32;
        let file = if self.flags & IN_BULK == 0 {
            InFile::Small { offset: u64::from(self.offset) * SMALL_UNIT, len: lengths * SMALL_UNIT as u32 }
        } else {
            InFile::Bulk {
                offset: u64::from(self.offset) * BULK_UNIT,
                head_len: bytes(lengths & ((1 << HEAD_BITS) - 1)),
                payload_len: bytes(lengths >> HEAD_BITS),
            }
        };
        Place { segment: self.segment, file }
    }

    pub(super) fn set_used(&mut self) {
        self.flags |= USED;
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.flags & PINNED != 0
    }

    pub(super) fn set_pinned(&mut self, pinned: bool) {
        self.flags = self.flags & !PINNED | if pinned { PINNED } else { 0 };
    }

    /// Nobody can count on it any more.
    pub(super) fn kill(&mut self) {
        self.kind = Kind::Dead;
        self.set_pinned(false);
    }

    pub(super) fn heat(&self) -> u8 {
        self.flags & HOT
    }

    /// Adds to the heat, at most to [`HOT`].
    pub(super) fn warm(&mut self, by: u8) {
        let heat = self.heat().saturating_add(by).min(HOT);
        self.flags = self.flags & !HOT | heat;
    }
}

/// Bytes in units, when they are whole units and so few that they fit the bits.
fn units(bytes: u64, unit: u64, bits: u32) -> Option<u32> {
    let units = u32::try_from(bytes / unit).ok()?;
    (bytes.is_multiple_of(unit) && u64::from(units) >> bits == 0).then_some(units)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(file: InFile) -> Entry {
        let place = Place { segment: u32::MAX, file };
        Entry { kind: Kind::Chunk, place, expires_s: u32::MAX, used: true, pinned: true, heat: HOT }
    }

    fn small(offset: u64, len: u32) -> Option<Packed> {
        Packed::pack(&entry(InFile::Small { offset, len }))
    }

    fn bulk(offset: u64, head_len: u32, payload_len: u32) -> Option<Packed> {
        Packed::pack(&entry(InFile::Bulk { offset, head_len, payload_len }))
    }

    #[test]
    fn what_is_packed_takes_16_bytes() {
        assert_eq!(size_of::<Packed>(), 16);
    }

    #[test]
    fn the_limits_fit_and_the_next_unit_does_not() {
        let (offset, len) = ((1 << 35) - 8, (1 << 19) - 8);
        let file = InFile::Small { offset, len };
        assert_eq!(small(offset, len).unwrap().unpack(), entry(file));
        assert!(small(offset + 8, len).is_none() && small(offset, len + 8).is_none());
        assert!(small(u64::MAX - 7, 8).is_none() && small(0, u32::MAX - 7).is_none());

        let (offset, head_len, payload_len) = ((1 << 44) - 4096, 31 * 4096, 2047 * 4096);
        let file = InFile::Bulk { offset, head_len, payload_len };
        assert_eq!(bulk(offset, head_len, payload_len).unwrap().unpack(), entry(file));
        assert!(bulk(offset + 4096, head_len, payload_len).is_none());
        assert!(bulk(offset, head_len + 4096, payload_len).is_none());
        assert!(bulk(offset, head_len, payload_len + 4096).is_none());
        assert!(bulk(offset, 4096, 4 << 20).is_some(), "a whole chunk");
    }

    #[test]
    fn parts_of_units_and_too_much_heat_are_refused() {
        assert!(small(4, 8).is_none() && small(8, 4).is_none());
        assert!(bulk(8, 4096, 4096).is_none() && bulk(0, 8, 4096).is_none() && bulk(0, 4096, 8).is_none());
        let too_hot = Entry { heat: HOT + 1, ..entry(InFile::Small { offset: 0, len: 8 }) };
        assert!(Packed::pack(&too_hot).is_none());
    }

    #[test]
    fn heat_stops_at_the_top_and_changes_nothing_else() {
        let before =
            Entry { heat: 13, ..entry(InFile::Bulk { offset: 4096, head_len: 4096, payload_len: 0 }) };
        let mut packed = Packed::pack(&before).unwrap();
        packed.warm(1);
        assert_eq!(packed.unpack(), Entry { heat: 14, ..before });
        packed.warm(u8::MAX);
        assert_eq!(packed.unpack(), Entry { heat: HOT, ..before });
    }

    #[test]
    fn only_values_expire() {
        let entry = Entry { kind: Kind::Root, expires_s: 10, ..entry(InFile::Small { offset: 0, len: 8 }) };
        assert!(entry.is_expired(10) && !entry.is_expired(9));
        assert!(!Entry { expires_s: 0, ..entry }.is_expired(u32::MAX));
        assert!(!Entry { kind: Kind::Page, ..entry }.is_expired(10));
    }

    fn files() -> impl Strategy<Value = InFile> {
        prop_oneof![
            (0..1_u64 << 32, 0..1_u32 << 16)
                .prop_map(|(offset, len)| InFile::Small { offset: offset * 8, len: len * 8 }),
            (0..1_u64 << 32, 0_u32..32, 0_u32..2048).prop_map(|(offset, head, payload)| InFile::Bulk {
                offset: offset * 4096,
                head_len: head * 4096,
                payload_len: payload * 4096,
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(
            segment: u32, file in files(), expires_s: u32, used: bool, pinned: bool, heat in 0..=HOT, kind in 0_usize..9,
        ) {
            let of_values = [Kind::Value, Kind::Root, Kind::Page, Kind::Chunk, Kind::Tombstone, Kind::Dead];
            let of_drafts = [Kind::Upload, Kind::Fragment, Kind::Filling];
            let kind = of_values.into_iter().chain(of_drafts).nth(kind).unwrap();
            let entry = Entry { kind, place: Place { segment, file }, expires_s, used, pinned, heat };
            prop_assert_eq!(Packed::pack(&entry).map(|packed| packed.unpack()), Some(entry));
        }
    }
}
