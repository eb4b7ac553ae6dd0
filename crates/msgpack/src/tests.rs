use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, UNIX_EPOCH};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Line(i64, u16),
    Text { text: String, bold: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Id(String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Drawing {
    id: Id,
    shapes: Vec<Shape>,
    names: BTreeMap<Id, Option<u64>>,
    #[serde(default)]
    note: Option<char>,
    #[serde(flatten)]
    others: BTreeMap<String, i32>,
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Point),
        any::<f64>().prop_filter("equal to itself", |x| !x.is_nan()).prop_map(Shape::Circle),
        any::<(i64, u16)>().prop_map(|(x, y)| Shape::Line(x, y)),
        (".{0,300}", any::<bool>()).prop_map(|(text, bold)| Shape::Text { text, bold }),
    ]
}

fn drawing() -> impl Strategy<Value = Drawing> {
    (
        ".{0,40}",
        prop::collection::vec(shape(), 0..40),
        prop::collection::btree_map(".{0,5}".prop_map(Id), any::<Option<u64>>(), 0..20),
        any::<Option<char>>(),
        prop::collection::btree_map("o[0-9]{1,3}", any::<i32>(), 0..5),
    )
        .prop_map(|(id, shapes, names, note, others)| Drawing {
            id: Id(id),
            shapes,
            names,
            note,
            others,
        })
}

fn back<'a, T: Deserialize<'a> + PartialEq + Debug>(bytes: &'a [u8], value: &T) {
    assert_eq!(decode::<T>(bytes).as_ref().ok(), Some(value), "{bytes:02x?}");
}

proptest! {
    /// Another reader of the format agrees.
    #[test]
    fn what_is_written_is_read(drawing in drawing()) {
        let bytes = encode(&drawing).unwrap();
        back(&bytes, &drawing);
        prop_assert_eq!(decode_sent::<Drawing>(&bytes).ok(), Some(drawing.clone()));
        prop_assert_eq!(rmp_serde::from_slice::<Drawing>(&bytes).unwrap(), drawing);
    }

    #[test]
    fn what_is_cut_off_is_refused(drawing in drawing(), at in any::<prop::sample::Index>()) {
        let bytes = encode(&drawing).unwrap();
        decode::<Drawing>(&bytes[..at.index(bytes.len())]).unwrap_err();
    }

    #[test]
    fn no_bytes_make_it_panic(
        drawing in drawing(),
        changed in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        any in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = encode(&drawing).unwrap();
        for (at, byte) in changed {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        drop(decode::<Drawing>(&bytes));
        drop(decode::<Drawing>(&any));
        drop(decode::<serde::de::IgnoredAny>(&any));
    }

    #[test]
    fn numbers_are_read_in_whatever_width_they_were_written(number in any::<i64>(), small in any::<u8>()) {
        back(&encode(&number).unwrap(), &number);
        back(&encode(&i64::from(small)).unwrap(), &small);
        back(&encode(&small).unwrap(), &f64::from(small));
        prop_assert_eq!(decode::<i8>(&encode(&number).unwrap()).ok(), i8::try_from(number).ok());
    }
}

#[test]
fn what_types_of_the_standard_library_write_is_read() {
    let value = (Duration::from_millis(1500), UNIX_EPOCH + Duration::from_secs(7), [1_u8, 2, 3]);
    back(&encode(&value).unwrap(), &value);
    let value: (std::net::IpAddr, std::net::IpAddr, ()) =
        ([10, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into(), ());
    back(&encode(&value).unwrap(), &value);
}

#[test]
fn a_text_may_be_borrowed_from_the_bytes() {
    let bytes = encode("text").unwrap();
    assert_eq!(decode::<&str>(&bytes).unwrap(), "text");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    name: String,
}

#[test]
fn fields_that_are_not_known_are_skipped() {
    #[derive(Serialize)]
    struct Newer {
        inner: BTreeMap<&'static str, Vec<Shape>>,
        name: &'static str,
        more: Option<Shape>,
    }
    let inner = BTreeMap::from([("a", vec![Shape::Point, Shape::Circle(0.5)]), ("b", vec![])]);
    let newer = Newer { inner, name: "x", more: Some(Shape::Line(-1, 1)) };
    back(&encode(&newer).unwrap(), &Known { name: "x".to_owned() });
}

#[test]
fn a_reader_says_what_it_found_and_what_it_wanted() {
    let why = |bytes: &[u8]| decode::<Known>(bytes).unwrap_err().to_string();
    assert_eq!(why(&[0x91, 0xa1, b'x']), "invalid type: sequence, expected struct Known");
    assert_eq!(why(&[0x80]), "missing field `name`");
    assert_eq!(why(&[]), "the bytes end before the value does");
    assert_eq!(why(&[0xc1]), "0xc1 begins no value");
    let known = encode(&Known { name: "x".to_owned() }).unwrap();
    assert_eq!(why(&[&known[..], &[0]].concat()), "1 bytes follow after the end of the value");
    let why = decode::<Shape>(&encode("Square").unwrap()).unwrap_err().to_string();
    assert!(why.starts_with("unknown variant `Square`"), "{why}");
    let why = decode::<Shape>(&encode("Circle").unwrap()).unwrap_err().to_string();
    assert_eq!(why, "a variant holds nothing");
    let why = decode::<(u8,)>(&encode(&(1, 2)).unwrap()).unwrap_err().to_string();
    assert_eq!(why, "a list or map has 1 items too many");
}

#[test]
fn what_is_nested_too_deep_is_refused_and_skipped_without_recursion() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is read, never used")]
    struct Nested(Vec<Nested>);
    let mut bytes = vec![0x91; 100_000];
    bytes.push(0x90);
    assert!(matches!(decode::<Nested>(&bytes), Err(Error::Depth)));
    decode::<serde::de::IgnoredAny>(&bytes).unwrap();
}

#[test]
fn a_length_that_lies_costs_no_memory() {
    assert!(matches!(decode::<Vec<u64>>(&[0xdd, 0xff, 0xff, 0xff, 0xff]), Err(Error::Short)));
    assert!(matches!(decode::<&str>(&[0xdb, 0xff, 0xff, 0xff, 0xff]), Err(Error::Short)));
}

/// A hundred bytes, and all of its fields may be missing.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Padded {
    numbers: [u64; 12],
}

#[test]
fn what_is_sent_takes_a_few_times_its_bytes_in_memory() {
    /// A list, or a map, of as many of these bytes as there are.
    fn many(marker: u8, item: &[u8], count: u32) -> Vec<u8> {
        let items = item.iter().copied().cycle().take(item.len() * count as usize);
        [marker].into_iter().chain(count.to_be_bytes()).chain(items).collect()
    }
    fn refused<T: serde::de::DeserializeOwned + Debug>(bytes: &[u8]) {
        decode::<T>(bytes).expect("it is well-formed");
        assert!(matches!(decode_sent::<T>(bytes), Err(Error::Elements)), "{:02x?}", &bytes[..8]);
    }
    const MANY: u32 = 100_000;
    refused::<Vec<Padded>>(&many(0xdd, &[0x80], MANY));
    refused::<Vec<Vec<u64>>>(&many(0xdd, &[0x90], MANY));
    refused::<Vec<Option<Padded>>>(&many(0xdd, &[0xc0], MANY));
    refused::<Vec<String>>(&many(0xdd, &[0xa0], MANY));
    refused::<BTreeMap<u8, Padded>>(&many(0xdf, &[0x01, 0x80], MANY));
    refused::<Vec<Shape>>(&many(0xdd, &encode("Point").unwrap(), MANY));
    // Fields count for nothing, elements within elements do.
    refused::<Vec<(u8, Vec<Padded>)>>(&many(0xdd, &[0x92, 0x01, 0x93, 0x80, 0x80, 0x80], MANY));
    // What is not read needs no memory.
    let skipped = [&[0x81, 0xa1, b'x'][..], &many(0xdd, &[0x80], MANY)].concat();
    assert_eq!(decode_sent::<Padded>(&skipped).unwrap(), Padded::default());
    // Whoever means well writes more than markers, and few of these.
    let numbers = vec![7_u8; 100_000];
    assert_eq!(decode_sent::<Vec<u8>>(&encode(&numbers).unwrap()).unwrap(), numbers);
    let padded: Vec<Padded> = (0..10_000).map(|_| Padded { numbers: [1 << 40; 12] }).collect();
    assert_eq!(decode_sent::<Vec<Padded>>(&encode(&padded).unwrap()).unwrap(), padded);
    decode_sent::<Vec<Padded>>(&many(0xdd, &[0x80], 500)).unwrap();
}
