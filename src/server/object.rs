//! JSON bodies that are objects: the library would also take an array of the members in their order.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

/// What was sent as an object.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Two {
        first: u8,
        second: Option<u8>,
    }

    #[test]
    fn only_an_object_is_taken_with_each_member_once() {
        let Object(Two { first, second }) = serde_json::from_str(r#"{"second":2,"first":1}"#).unwrap();
        assert_eq!((first, second), (1, Some(2)));
        for bad in ["[1,2]", "[]", "1", "null", r#"{"first":1,"first":2}"#, r#"{"first":1,"third":3}"#, "{}"] {
            assert!(serde_json::from_str::<Object<Two>>(bad).is_err(), "{bad}");
        }
    }
}
