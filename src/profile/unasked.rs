//! Finds where bytes that only a person may ask for can come about from what is sent without being asked for.

/// The pieces in which `wanted` becomes complete, if the pieces are sent in any order and as often as one likes.
///
/// A device reads a stream: it does not see where one piece ends and the next begins. So `wanted` counts wherever it
/// lies in a row of pieces: within one, across two, or put together from many.
pub(super) fn completing(wanted: &[u8], pieces: &[&[u8]]) -> Vec<usize> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let begun = begun(wanted, pieces);
    let ends_in = |piece: &[u8]| {
        let rest = begun.iter().any(|length| wanted.get(*length..).is_some_and(|rest| piece.starts_with(rest)));
        rest || piece.windows(wanted.len()).any(|window| window == wanted)
    };
    pieces.iter().enumerate().filter(|(_, piece)| ends_in(piece)).map(|(index, _)| index).collect()
}

/// How much of the beginning of `wanted` may have been sent last, in bytes.
fn begun(wanted: &[u8], pieces: &[&[u8]]) -> Vec<usize> {
    let mut lengths: Vec<usize> = (1..wanted.len())
        .filter(|length| wanted.get(..*length).is_some_and(|begin| pieces.iter().any(|piece| piece.ends_with(begin))))
        .collect();
    // A piece that lies wholly within leads on from each length that has been reached.
    let mut next = 0;
    while let Some(length) = lengths.get(next).copied() {
        let rest = wanted.get(length..).unwrap_or_default();
        for piece in pieces.iter().filter(|piece| !piece.is_empty() && piece.len() < rest.len()) {
            let longer = length + piece.len();
            if rest.starts_with(piece) && !lengths.contains(&longer) {
                lengths.push(longer);
            }
        }
        next += 1;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::completing;

    /// A name, the pieces, and those in which the wanted bytes end.
    type Row<'r> = (&'r str, &'r [&'r [u8]], &'r [usize]);

    #[test]
    fn bytes_are_found_within_a_piece_across_pieces_and_in_any_order() {
        let wanted: &[u8] = &[1, 2, 3, 4];
        let rows: &[Row<'_>] = &[
            ("the same", &[&[1, 2, 3, 4]], &[0]),
            ("twice in one", &[&[1, 2, 3, 4, 1, 2, 3, 4]], &[0]),
            ("embedded", &[&[9, 1, 2, 3, 4, 9]], &[0]),
            ("in two", &[&[9, 1, 2], &[3, 4, 9]], &[1]),
            ("in two, the second first", &[&[3, 4], &[1, 2]], &[0]),
            ("in four", &[&[1], &[2], &[3], &[4]], &[3]),
            ("one that repeats itself", &[&[3, 4, 1, 2]], &[0]),
            ("two ends", &[&[1, 2, 3], &[4], &[4, 4]], &[1, 2]),
            ("a part", &[&[1, 2, 3], &[3, 4]], &[]),
            ("with something between", &[&[1, 2, 9], &[3, 4]], &[]),
            ("an empty piece", &[&[], &[1, 2]], &[]),
            ("nothing", &[], &[]),
        ];
        for (name, pieces, expected) in rows {
            assert_eq!(completing(wanted, pieces), *expected, "{name}");
        }
        assert_eq!(completing(&[], &[&[1]]), Vec::<usize>::new());
        // What repeats within itself: 1 1 2 after 1 is found although the first 1 led nowhere.
        assert_eq!(completing(&[1, 1, 2], &[&[1], &[2]]), [1]);
    }
}
