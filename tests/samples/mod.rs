//! Values of every message, made up from a seed.

use std::borrow::Cow;

use percolog::wire::codec::{Bytes, Records, Str, Uuid};

/// What kind of values a [`Source`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Null where it is allowed, otherwise empty or zero.
    Empty,
    /// The greatest numbers, nothing null, two elements in every array.
    Greatest,
    /// Anything.
    Random,
    /// Many elements in the arrays that lie within so many others, one in those around them, and
    /// otherwise as empty as possible: what makes values large and bytes few.
    Crowded {
        /// Arrays around the crowded ones.
        depth: usize,
    },
}

/// Elements of a crowded array: enough for vectors to outgrow what they start with.
pub(crate) const CROWD: usize = 2_500;

/// Gives values; the same ones for the same seed and flavour.
pub(crate) struct Source {
    random: fastrand::Rng,
    flavour: Flavour,
    depth: usize,
}

macro_rules! integers {
    ($($name:ident $type:ident),*) => {$(
        pub(crate) fn $name(&mut self) -> $type {
            match self.flavour {
                Flavour::Empty | Flavour::Crowded { .. } => 0,
                Flavour::Greatest => $type::MAX,
                Flavour::Random => match self.random.u8(0..4) {
                    0 => $type::MIN,
                    1 => $type::MAX,
                    _ => self.random.$type(..),
                },
            }
        }
    )*};
}

impl Source {
    pub(crate) fn new(flavour: Flavour, seed: u64) -> Source {
        Source {
            random: fastrand::Rng::with_seed(seed),
            flavour,
            depth: 0,
        }
    }

    integers!(int8 i8, int16 i16, int32 i32, int64 i64, uint16 u16);

    pub(crate) fn boolean(&mut self) -> bool {
        self.int8() > 0
    }

    pub(crate) fn float64(&mut self) -> f64 {
        f64::from(self.int32()) / 8.0
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        let mut id = [0; 16];
        id.fill_with(|| self.int8().cast_unsigned());
        Uuid(id)
    }

    /// Whether something that may be null if `allowed` is.
    pub(crate) fn null(&mut self, allowed: bool) -> bool {
        allowed
            && match self.flavour {
                Flavour::Empty => true,
                Flavour::Greatest | Flavour::Crowded { .. } => false,
                Flavour::Random => self.random.bool(),
            }
    }

    fn length(&mut self, usual: usize, long: usize) -> usize {
        match self.flavour {
            Flavour::Empty | Flavour::Crowded { .. } => 0,
            Flavour::Greatest => usual,
            Flavour::Random if self.random.u8(..) == 0 => long,
            Flavour::Random => self.random.usize(0..=usual),
        }
    }

    /// Sometimes longer than one byte of a varint can say.
    pub(crate) fn string<'a>(&mut self) -> Str<'a> {
        let length = self.length(6, 200);
        Cow::Owned(
            (0..length)
                .map(|_| self.random.char('a'..'\u{2000}'))
                .collect(),
        )
    }

    pub(crate) fn bytes<'a>(&mut self) -> Bytes<'a> {
        let length = self.length(6, 20_000);
        Cow::Owned((0..length).map(|_| self.random.u8(..)).collect())
    }

    pub(crate) fn records<'a>(&mut self, allowed: bool) -> Records<'a> {
        static POOL: [u8; 20_000] = [0xa5; 20_000];
        if self.null(allowed) {
            return Records::Null;
        }
        Records::Bytes(&POOL[..self.length(100, POOL.len())])
    }

    pub(crate) fn array<T: Sample>(&mut self, version: i16) -> Vec<T> {
        let length = match self.flavour {
            Flavour::Crowded { depth } if self.depth == depth => CROWD,
            Flavour::Crowded { depth } => usize::from(self.depth < depth),
            _ => self.length(2, 3),
        };
        self.depth += 1;
        let elements = (0..length).map(|_| T::sample(self, version)).collect();
        self.depth -= 1;
        elements
    }
}

/// A value of any message.
pub(crate) trait Sample: Sized {
    /// One that `version` can carry without loss.
    fn sample(source: &mut Source, version: i16) -> Self;
}

macro_rules! primitive_samples {
    ($($type:ty, $name:ident);*) => {$(
        impl Sample for $type {
            fn sample(source: &mut Source, _version: i16) -> Self {
                source.$name()
            }
        }
    )*};
}

primitive_samples!(i8, int8; i16, int16; i32, int32; i64, int64; Uuid, uuid; Str<'_>, string);

include!(concat!(env!("OUT_DIR"), "/samples.rs"));
