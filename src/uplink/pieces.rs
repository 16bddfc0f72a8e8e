//! Which readings of the log are still to be sent before the live lane: the backlog in pieces, and how it is kept. Pure.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::Seq;

/// Everything urgent up to this cursor is settled.
pub(super) const URGENT: &str = "urgent";

/// Everything up to this cursor that is neither urgent nor a reading is settled.
pub(super) const OTHERS: &str = "others";

/// The cursor of everything but readings, before there were two of them. It moves no longer, so nothing of it is untrue.
const ALL_BUT_READINGS: &str = "alerts";

/// The cursor that every reading up to which is settled.
pub(super) const READINGS: &str = "readings";

/// The cursors that hold rows back in the store.
pub const HOLDING: [&str; 3] = [URGENT, OTHERS, READINGS];

/// Most pieces that wait with something sent between them, and so most ranges that are remembered as sent. One more joins
/// the two with the smallest range between them, which is sent twice.
const MAX_PIECES: usize = 8;

/// The ranges that were sent ahead of the readings' cursor: after one number and up to another. Unused places are zero.
pub(super) type SentRanges = [(Seq, Seq); MAX_PIECES + 1];

/// The events after one number and up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) after: Seq,
    pub(super) through: Seq,
    /// Not only readings: somebody asked for all of it again.
    pub(super) every_kind: bool,
    /// Its readings were never confirmed, so that the store has to keep them. What was only asked for again holds nothing.
    waits: bool,
}

impl Piece {
    const fn waiting(after: Seq, through: Seq) -> Self {
        Self { after, through, every_kind: false, waits: true }
    }

    const fn again(after: Seq, through: Seq) -> Self {
        Self { after, through, every_kind: true, waits: false }
    }
}

/// The backlog, oldest first. What lies between the pieces that wait, and between the last of them and the live cursor, is
/// sent; some of it once more, if somebody asked for it.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pieces: VecDeque<Piece>,
    generation: u64,
}

/// The names under which the store keeps the range with this number that was sent ahead of the readings' cursor.
fn names(number: usize) -> (String, String) {
    (format!("sent.{number}.after"), format!("sent.{number}.through"))
}

/// Where what is urgent begins to wait.
pub(super) fn urgent(stored: &BTreeMap<String, Seq>) -> Seq {
    stored.get(URGENT).or_else(|| stored.get(ALL_BUT_READINGS)).copied().unwrap_or(Seq::ZERO)
}

/// Where what is neither urgent nor a reading begins to wait.
pub(super) fn others(stored: &BTreeMap<String, Seq>) -> Seq {
    stored.get(OTHERS).or_else(|| stored.get(ALL_BUT_READINGS)).copied().unwrap_or(Seq::ZERO)
}

impl Pieces {
    /// Every name under which the store may have a cursor of the uplink.
    pub(super) fn cursor_names() -> impl Iterator<Item = String> {
        let sent = (0..=MAX_PIECES).map(names).flat_map(|(after, through)| [after, through]);
        sent.chain(HOLDING.map(str::to_owned)).chain([ALL_BUT_READINGS.to_owned()])
    }

    /// What the stored cursors leave to be sent, and where the live lane begins. Nothing is beyond `durable`.
    pub(super) fn restore(stored: &BTreeMap<String, Seq>, durable: Seq) -> (Self, Seq) {
        let known = |name: &str| stored.get(name).map(|seq| (*seq).min(durable));
        // Damage may have taken one end of a range: nobody knows what of it was sent, and it is sent again.
        let whole = |(after, through): (String, String)| known(&after).zip(known(&through));
        let mut sent: Vec<(Seq, Seq)> = (0..=MAX_PIECES).map(names).filter_map(whole).collect();
        sent.sort_unstable();
        let (mut pieces, mut end) = (Self::default(), known(READINGS).unwrap_or(Seq::ZERO));
        for (after, through) in sent.into_iter().filter(|(after, through)| after < through) {
            if after > end {
                pieces.pieces.push_back(Piece::waiting(end, after));
            }
            end = end.max(through);
        }
        (pieces, end)
    }

    /// What was sent ahead of the readings' cursor.
    pub(super) fn sent_ranges(&self, live: Seq) -> SentRanges {
        let ends = self.waiting().skip(1).map(|next| next.after).chain([live]);
        let ranges = self.waiting().map(|piece| piece.through).zip(ends).filter(|(after, through)| after < through);
        let mut sent = [(Seq::ZERO, Seq::ZERO); MAX_PIECES + 1];
        sent.iter_mut().zip(ranges).for_each(|(place, range)| *place = range);
        sent
    }

    /// What the store has to keep of it, under the names of the cursors.
    pub(super) fn sent(&self, live: Seq) -> Vec<(String, Seq)> {
        let named = (0..=MAX_PIECES).map(names).zip(self.sent_ranges(live));
        named.flat_map(|((after, through), (from, to))| [(after, from), (through, to)]).collect()
    }

    fn waiting(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(|piece| piece.waits)
    }

    /// Every reading up to here is settled, if the first piece has come to `cursor`. `None`: none of the backlog waits.
    pub(super) fn settled(&self, cursor: Seq) -> Option<Seq> {
        let is_first = self.pieces.front().is_some_and(|piece| piece.waits);
        self.waiting().next().map(|piece| if is_first { piece.after.max(cursor) } else { piece.after })
    }

    /// The events after one number and up to another of each piece, oldest first.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (Seq, Seq)> {
        self.pieces.iter().map(|piece| (piece.after, piece.through))
    }

    /// Something is left of what somebody asked for again.
    pub(super) fn has_wishes(&self) -> bool {
        self.pieces.iter().any(|piece| piece.every_kind)
    }

    /// The one that is to be sent now.
    pub(super) fn first(&self) -> Option<Piece> {
        self.pieces.front().copied()
    }

    /// Rises whenever a new piece becomes the first.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Numbers that are left, if the first piece has come to `cursor`.
    pub(super) fn left(&self, cursor: Seq) -> u64 {
        let sizes = self.pieces.iter().map(|piece| piece.through.0.saturating_sub(piece.after.0));
        let done = self.pieces.front().map_or(0, |piece| cursor.min(piece.through).0.saturating_sub(piece.after.0));
        sizes.sum::<u64>().saturating_sub(done)
    }

    /// The first piece has come to `cursor`: what is before it is gone.
    pub(super) fn passed(&mut self, cursor: Seq) {
        let Some(first) = self.pieces.front_mut() else { return };
        first.after = first.after.max(cursor);
        if first.after >= first.through {
            self.pieces.pop_front();
        }
        self.generation = self.generation.saturating_add(1);
    }

    /// Readings after all pieces are to be sent too.
    pub(super) fn add(&mut self, after: Seq, through: Seq) {
        match self.pieces.back_mut() {
            Some(last) if last.through >= after && !last.every_kind => last.through = through,
            _ => self.pieces.push_back(Piece::waiting(after, through)),
        }
        self.join();
    }

    /// These events are to be sent again, of every kind. Of a piece that still waits what is among them is sent once, with
    /// what is no reading: that was sent already.
    pub(super) fn ask_again(&mut self, first: Seq, last: Seq) {
        let mut after = Seq(first.0.saturating_sub(1));
        let mut again = Vec::new();
        for piece in std::mem::take(&mut self.pieces) {
            let (from, to) = (after.max(piece.after), last.min(piece.through));
            if after < piece.after.min(last) {
                again.push(Piece::again(after, piece.after.min(last)));
            }
            if from < to {
                again.push(Piece { through: from, ..piece });
                again.push(Piece { after: from, through: to, every_kind: true, ..piece });
                again.push(Piece { after: to, ..piece });
            } else {
                again.push(piece);
            }
            after = after.max(piece.through);
        }
        if after < last {
            again.push(Piece::again(after, last));
        }
        again.retain(|piece| piece.after < piece.through);
        again.sort_by_key(|piece| piece.after);
        self.pieces = again.into();
        self.generation = self.generation.saturating_add(1);
        self.join();
    }

    /// Keeps the number of pieces bounded. What was asked for again between two that are joined is sent with them.
    fn join(&mut self) {
        loop {
            let waiting: Vec<(usize, Piece)> =
                self.pieces.iter().copied().enumerate().filter(|(_, piece)| piece.waits).collect();
            let pairs = waiting.iter().zip(waiting.iter().skip(1));
            let gaps = pairs.map(|((place, piece), (next_place, next))| {
                (next.after.0.saturating_sub(piece.through.0), *place, *next_place)
            });
            let gaps: Vec<_> = gaps.filter(|(gap, ..)| *gap > 0).collect();
            let Some((_, place, next)) = gaps.iter().min().filter(|_| gaps.len() >= MAX_PIECES) else { return };
            let rest = self.pieces.split_off(next.saturating_add(1));
            let joined = self.pieces.split_off(*place);
            if let (Some(first), Some(last)) = (joined.front(), joined.back()) {
                let every_kind = joined.iter().any(|piece| piece.every_kind);
                self.pieces.push_back(Piece { after: first.after, through: last.through, every_kind, waits: true });
            }
            self.pieces.extend(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pieces: &Pieces) -> Vec<(u64, u64)> {
        pieces.pieces.iter().map(|piece| (piece.after.0, piece.through.0)).collect()
    }

    fn stored(pieces: &Pieces, readings: u64, live: u64) -> BTreeMap<String, Seq> {
        let mut cursors: BTreeMap<String, Seq> = pieces.sent(Seq(live)).into_iter().collect();
        cursors.insert(READINGS.to_owned(), Seq(readings));
        cursors
    }

    #[test]
    fn what_is_stored_makes_the_same_pieces_again() {
        let mut pieces = Pieces::default();
        pieces.add(Seq(10), Seq(100));
        pieces.add(Seq(130), Seq(200));
        pieces.add(Seq(200), Seq(250));
        assert_eq!(ranges(&pieces), [(10, 100), (130, 250)]);
        let (again, live) = Pieces::restore(&stored(&pieces, 10, 300), Seq(1000));
        assert_eq!((ranges(&again), live), (ranges(&pieces), Seq(300)));
        assert_eq!(again.left(Seq(40)), 60 + 120);

        let (none, live) = Pieces::restore(&stored(&Pieces::default(), 70, 70), Seq(1000));
        assert_eq!((ranges(&none), live), (vec![], Seq(70)));
        let (lost, live) = Pieces::restore(&stored(&pieces, 10, 300), Seq(50));
        assert_eq!((ranges(&lost), live), (vec![], Seq(10)), "the log was lost: nothing is beyond its end");
    }

    #[test]
    fn what_is_asked_for_again_is_what_is_not_to_be_sent_anyway() {
        let mut pieces = Pieces::default();
        pieces.add(Seq(50), Seq(60));
        pieces.ask_again(Seq(41), Seq(80));
        let expected = [(40, 50), (50, 60), (60, 80)];
        assert_eq!(ranges(&pieces), expected);
        assert!(pieces.has_wishes());
        assert_eq!(pieces.waiting().map(|piece| piece.after).collect::<Vec<_>>(), [Seq(50)]);
        let mut settled = Pieces::default();
        settled.ask_again(Seq(41), Seq(80));
        assert_eq!((ranges(&settled), settled.settled(Seq(60))), (vec![(40, 80)], None));
    }

    #[test]
    fn what_is_asked_for_again_moves_no_cursor() {
        let mut pieces = Pieces::default();
        pieces.add(Seq(50), Seq(60));
        pieces.add(Seq(70), Seq(90));
        let (before, settled) = (pieces.sent(Seq(200)), pieces.settled(Seq::ZERO));
        assert_eq!(settled, Some(Seq(50)));
        pieces.ask_again(Seq(5), Seq(150));
        assert_eq!(ranges(&pieces), [(4, 50), (50, 60), (60, 70), (70, 90), (90, 150)]);
        assert_eq!((pieces.sent(Seq(200)), pieces.settled(Seq(30))), (before, settled));
        pieces.passed(Seq(50));
        pieces.passed(Seq(55));
        assert_eq!(pieces.settled(Seq(57)), Some(Seq(57)));
        pieces.passed(Seq(60));
        assert_eq!(pieces.settled(Seq(61)), Some(Seq(70)), "what is asked for between them holds nothing");
        pieces.passed(Seq(70));
        pieces.passed(Seq(90));
        assert_eq!(pieces.settled(Seq(95)), None);
    }

    #[test]
    fn a_range_that_lost_one_of_its_ends_is_sent_again() {
        let mut pieces = Pieces::default();
        pieces.add(Seq(10), Seq(100));
        pieces.add(Seq(130), Seq(200));
        let whole = stored(&pieces, 10, 300);
        let restored = |lost: &str| {
            let mut left = whole.clone();
            assert!(left.remove(lost).is_some(), "{lost}");
            let (again, live) = Pieces::restore(&left, Seq(1000));
            (ranges(&again), live.0)
        };
        assert_eq!(restored("sent.0.after"), (vec![(10, 200)], 300));
        assert_eq!(restored("sent.0.through"), (vec![(10, 200)], 300));
        assert_eq!(restored("sent.1.after"), (vec![(10, 100)], 130), "the live lane goes on after what is known");
        assert_eq!(restored(READINGS), (vec![(0, 100), (130, 200)], 300));
    }

    #[test]
    fn what_waits_anyway_is_sent_once_and_with_every_kind_where_it_was_asked_for() {
        let kinds = |pieces: &Pieces| -> Vec<bool> { pieces.pieces.iter().map(|piece| piece.every_kind).collect() };
        let mut pieces = Pieces::default();
        pieces.add(Seq(50), Seq(60));
        pieces.add(Seq(70), Seq(90));
        pieces.ask_again(Seq(56), Seq(75));
        assert_eq!(ranges(&pieces), [(50, 55), (55, 60), (60, 70), (70, 75), (75, 90)]);
        assert_eq!(kinds(&pieces), [false, true, true, true, false]);
        assert_eq!(pieces.left(Seq(50)), 40);
        let mut inside = Pieces::default();
        inside.add(Seq(50), Seq(60));
        inside.ask_again(Seq(53), Seq(55));
        assert_eq!((ranges(&inside), kinds(&inside)), (vec![(50, 52), (52, 55), (55, 60)], vec![false, true, false]));
    }

    #[test]
    fn readings_that_wait_right_behind_what_was_asked_for_again_are_held_all_the_same() {
        let mut pieces = Pieces::default();
        pieces.ask_again(Seq(1), Seq(100));
        pieces.add(Seq(100), Seq(400));
        assert_eq!(ranges(&pieces), [(0, 100), (100, 400)]);
        assert_eq!(pieces.settled(Seq(30)), Some(Seq(100)), "nobody has confirmed what comes after it");
        let (again, live) = Pieces::restore(&stored(&pieces, 100, 400), Seq(400));
        assert_eq!((ranges(&again), live), (vec![], Seq(100)));
    }

    #[test]
    fn pieces_stay_few_and_what_lies_between_them_is_joined_where_it_is_least() {
        let mut pieces = Pieces::default();
        for number in 0..20 {
            pieces.add(Seq(number * 100 + number), Seq(number * 100 + 50));
        }
        assert_eq!(pieces.pieces.len(), MAX_PIECES);
        pieces.ask_again(Seq(1), Seq(1990));
        assert_eq!(pieces.waiting().count(), MAX_PIECES);
        assert!(pieces.pieces.len() <= 2 * MAX_PIECES + 1, "{pieces:?}");
        pieces.add(Seq(2000), Seq(2050));
        let apart = pieces.sent(Seq(3000)).iter().filter(|(_, seq)| *seq > Seq::ZERO).count();
        assert_eq!(apart, 2 * MAX_PIECES);
        let all = (0..20).all(|number| {
            ranges(&pieces)
                .iter()
                .any(|(after, through)| *after <= number * 100 + number && number * 100 + 50 <= *through)
        });
        assert!(all, "{pieces:?}");
    }

    #[test]
    fn a_piece_that_is_passed_is_gone() {
        let mut pieces = Pieces::default();
        pieces.add(Seq(10), Seq(20));
        pieces.add(Seq(30), Seq(40));
        pieces.passed(Seq(15));
        assert_eq!(ranges(&pieces), [(15, 20), (30, 40)]);
        pieces.passed(Seq(20));
        assert_eq!(ranges(&pieces), [(30, 40)]);
    }
}
