use proptest::prelude::*;

use super::model::{Model, Paper, Row};
use super::*;

/// The policy, driven as a shell would drive it, beside the model.
struct Pair {
    policy: Policy,
    model: Model,
    /// The identity in each slot.
    slots: Vec<Option<u64>>,
}

/// What a test does to both. Identities and slots are picked modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Request(u64, u32),
    InsertUnannounced(u64, u32),
    AdmitInVain(u64, u32),
    EvictOne,
    Remove(usize),
    Reweigh(usize, u32),
    Rotate(usize),
    Chill(usize),
    SetCapacity(u64),
}

impl Pair {
    fn new(capacity: u64) -> Self {
        Pair { policy: Policy::new(capacity), model: Model::new(capacity), slots: Vec::new() }
    }

    fn slot_of(&self, id: u64) -> Option<u32> {
        self.slots.iter().position(|&held| held == Some(id)).map(|slot| slot as u32)
    }

    fn id_in(&self, slot: u32) -> u64 {
        self.slots[slot as usize].expect("a resident")
    }

    /// The n-th resident in the order of slots, round and round.
    fn pick(&self, n: usize) -> Option<(u32, u64)> {
        let held: Vec<_> = (0u32..).zip(&self.slots).filter_map(|(slot, &id)| Some((slot, id?))).collect();
        held.get(n % held.len().max(1)).copied()
    }

    /// True on a hit.
    fn request(&mut self, id: u64, weight: u32) -> bool {
        if let Some(slot) = self.slot_of(id) {
            self.policy.hit(slot);
            self.model.hit(id);
            return true;
        }
        if self.policy.fits(u64::from(weight)) {
            let admission = self.admit(id, weight);
            self.bring_in(id, weight, admission);
        }
        false
    }

    fn admit(&mut self, id: u64, weight: u32) -> Admission {
        let admission = self.policy.admit(id, weight);
        assert_eq!(admission, self.model.admit(id, weight));
        admission
    }

    fn bring_in(&mut self, id: u64, weight: u32, admission: Admission) {
        while self.policy.resident_weight() + u64::from(weight) > self.policy.capacity() {
            assert!(self.evict_one(admission), "nothing resident, and no room");
        }
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        self.slots.resize(self.slots.len().max(slot + 1), None);
        self.slots[slot] = Some(id);
        self.policy.insert(slot as u32, weight, admission);
        self.model.insert(id, weight, admission);
    }

    fn evict_one(&mut self, admission: Admission) -> bool {
        let victim = self.policy.victim(admission);
        assert_eq!(victim.map(|slot| self.id_in(slot)), self.model.victim(admission));
        let Some(slot) = victim else { return false };
        let id = self.id_in(slot);
        self.slots[slot as usize] = None;
        self.policy.evict(slot, id);
        self.model.evict(id);
        true
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Request(id, weight) => {
                self.request(id, weight);
            }
            Step::InsertUnannounced(id, weight) => {
                if self.slot_of(id).is_none() && self.policy.fits(u64::from(weight)) {
                    self.bring_in(id, weight, Admission::Unknown);
                }
            }
            Step::AdmitInVain(id, weight) => {
                if self.slot_of(id).is_none() {
                    self.admit(id, weight);
                }
            }
            Step::EvictOne => {
                self.evict_one(Admission::default());
            }
            Step::SetCapacity(capacity) => {
                self.policy.set_capacity(capacity);
                self.model.set_capacity(capacity);
            }
            Step::Remove(n) | Step::Reweigh(n, _) | Step::Rotate(n) | Step::Chill(n) => {
                let Some((slot, id)) = self.pick(n) else { return };
                self.apply_to(step, slot, id);
            }
        }
    }

    fn apply_to(&mut self, step: &Step, slot: u32, id: u64) {
        match *step {
            Step::Remove(_) => {
                self.slots[slot as usize] = None;
                self.policy.remove(slot);
                self.model.remove(id);
            }
            Step::Reweigh(_, weight) => {
                self.policy.reweigh(slot, weight);
                self.model.reweigh(id, weight);
            }
            Step::Rotate(_) => {
                self.policy.rotate(slot);
                self.model.rotate(id);
            }
            _ => {
                self.policy.chill(slot);
                self.model.chill(id);
                assert_eq!(self.policy.victim(Admission::default()), Some(slot), "the coldest is next");
            }
        }
    }

    /// Same residents, same ghosts, same order, same weights, same target; and the books are in order.
    fn check(&self) {
        let Policy { capacity, target, residents, ghosts } = &self.policy;
        let row = |side| -> Row {
            residents.coldest_first(side).map(|(slot, weight)| (self.id_in(slot), weight)).collect()
        };
        let seen = Model {
            c: *capacity,
            p: *target,
            t1: row(Side::Recent),
            t2: row(Side::Frequent),
            b1: ghosts.oldest_first(Side::Recent).collect(),
            b2: ghosts.oldest_first(Side::Frequent).collect(),
        };
        assert_eq!(seen, self.model);
        assert_eq!(self.policy.len(), self.slots.iter().flatten().count());
        residents.audit();
        ghosts.audit();
        self.check_bounds();
    }

    fn check_bounds(&self) {
        let (policy, Weights { t1, t2, b1, b2 }) = (&self.policy, self.policy.weights());
        let capacity = policy.capacity();
        assert!((0.0..=capacity as f64).contains(&policy.target()));
        assert!(b1 == 0 || t1 + b1 <= capacity);
        assert!(b1 + b2 == 0 || t1 + t2 + b1 + b2 <= 2 * capacity);
        assert!(policy.ghosts() <= GHOSTS_ALWAYS + GHOSTS_PER_RESIDENT * policy.len());
    }
}

fn step() -> impl Strategy<Value = Step> {
    let (id, weight, n) = (0..32u64, 0..9u32, 0..64usize);
    prop_oneof![
        30 => (id.clone(), weight.clone()).prop_map(|(id, weight)| Step::Request(id, weight)),
        2 => (id.clone(), weight.clone()).prop_map(|(id, weight)| Step::InsertUnannounced(id, weight)),
        1 => (id, weight.clone()).prop_map(|(id, weight)| Step::AdmitInVain(id, weight)),
        2 => Just(Step::EvictOne),
        2 => n.clone().prop_map(Step::Remove),
        2 => (n.clone(), weight).prop_map(|(n, weight)| Step::Reweigh(n, weight)),
        2 => n.clone().prop_map(Step::Rotate),
        2 => n.prop_map(Step::Chill),
        1 => (0..60u64).prop_map(Step::SetCapacity),
    ]
}

proptest! {
    #[test]
    fn any_sequence_leaves_the_policy_as_the_model(
        capacity in 0..60u64,
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut pair = Pair::new(capacity);
        for step in &steps {
            pair.apply(step);
            pair.check();
        }
    }

    #[test]
    fn pages_are_replaced_as_in_the_paper(
        capacity in 1..20usize,
        requests in prop::collection::vec(prop_oneof![0..12u64, 0..40u64], 1..400),
    ) {
        let (mut pair, mut paper) = (Pair::new(capacity as u64), Paper::new(capacity));
        for &page in &requests {
            prop_assert_eq!(pair.request(page, 1), paper.request(page));
            let model = &pair.model;
            prop_assert_eq!(
                (&model.t1, &model.t2, &model.b1, &model.b2),
                (&paper.t1, &paper.t2, &paper.b1, &paper.b2)
            );
        }
        pair.check();
    }
}

/// A linear congruential generator: long runs need no shrinking.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Long enough for several segments, for the bound on the number of ghosts, and for giving memory back.
#[test]
fn a_long_run_with_thousands_of_ghosts_stays_the_model() {
    let mut random = Random(7);
    let mut pair = Pair::new(6000);
    for round in 0..40_000u64 {
        // First few and heavy beside many and tiny, then the other way round.
        let heavy = if round < 20_000 { 8 } else { 2 };
        let weight = if random.below(10) < heavy { 40 + random.below(60) } else { random.below(3) };
        let id = random.below(if round % 3 == 0 { 300 } else { 9000 });
        pair.request(id, weight as u32);
        if round % 9000 == 8999 {
            pair.policy.set_capacity(9000 - round / 10);
            pair.model.set_capacity(9000 - round / 10);
        }
        if round % 512 == 0 {
            pair.check();
        }
    }
    pair.check();
}

/// T2 is full of heavy values that were used twice, fifty more of them are in B2, and 8000 tiny ones pass through T1:
/// by weight all of these might be remembered.
#[test]
fn a_flood_of_tiny_values_forgets_its_own_ghosts_first() {
    let mut pair = Pair::new(100_000);
    for id in (0..150).flat_map(|id| [id, id]) {
        pair.request(id, 1000);
    }
    let before = pair.model.b2.len();
    for id in 1000..9000 {
        pair.request(id, 1);
        if id % 100 == 0 {
            pair.check();
        }
    }
    let most = GHOSTS_ALWAYS + GHOSTS_PER_RESIDENT * pair.policy.len();
    let kept = most - GHOSTS_PER_RESIDENT..=most;
    assert!(kept.contains(&pair.policy.ghosts()), "the bound on the number is the one that holds");
    assert!(before >= 50 && pair.model.b2.len() >= before, "the flood has pushed out ghosts of T2");
}

#[test]
fn a_flood_of_weightless_values_is_remembered_only_in_part() {
    let mut policy = Policy::new(1 << 30);
    for id in 0..100_000 {
        let admission = policy.admit(id, 0);
        policy.insert(0, 0, admission);
        policy.evict(0, id);
    }
    assert_eq!((policy.len(), policy.ghosts()), (0, GHOSTS_ALWAYS));
    assert!(policy.ghost_bytes() < 64 * 1024, "{} bytes", policy.ghost_bytes());
}

#[test]
fn ghosts_give_memory_back_when_they_are_forgotten() {
    let mut policy = Policy::new(200_000);
    for id in 0..200_000u32 {
        policy.insert(id, 1, Admission::Unknown);
        policy.hit(id);
    }
    for id in 0..100_000u32 {
        policy.evict(id, u64::from(id));
    }
    let (peak, count) = (policy.ghost_bytes(), policy.ghosts());
    assert_eq!(count, 100_000);
    assert!(peak < count * 29, "{peak} bytes");
    policy.set_capacity(51_000);
    assert!(policy.ghosts() <= 2_000 && policy.ghost_bytes() < 96 * 1024, "{} bytes", policy.ghost_bytes());
}

#[test]
fn a_resident_costs_twelve_bytes() {
    let mut policy = Policy::new(u64::MAX);
    for slot in 0..100 * lists::SEGMENT as u32 {
        policy.insert(slot, MAX_WEIGHT, Admission::Unknown);
    }
    assert_eq!(policy.resident_weight(), u64::from(MAX_WEIGHT) * policy.len() as u64);
    assert!(policy.resident_bytes() <= policy.len() * 12 + 128 * 8);
}

#[test]
fn late_hits_and_doubled_calls_on_an_empty_slot_change_nothing() {
    let mut policy = Policy::new(10);
    policy.insert(3, 4, Admission::Unknown);
    for slot in [0, 2, 5000, u32::MAX] {
        policy.hit(slot);
        policy.rotate(slot);
        policy.chill(slot);
        policy.remove(slot);
        policy.evict(slot, 9);
        policy.reweigh(slot, 7);
    }
    assert_eq!(policy.weights(), Weights { t1: 4, ..Weights::default() });
    assert_eq!((policy.victim(Admission::default()), policy.ghosts()), (Some(3), 0));
}

#[test]
fn a_pinned_victim_that_is_rotated_lets_the_next_one_be_found() {
    let mut policy = Policy::new(10);
    for slot in 0..3 {
        policy.insert(slot, 1, Admission::Unknown);
    }
    let pinned = policy.victim(Admission::default()).expect("three residents");
    policy.rotate(pinned);
    assert_eq!((pinned, policy.victim(Admission::default())), (0, Some(1)));
    assert_eq!(policy.weights().t1, 3, "it was not used, so it stays in T1");
}

#[test]
fn the_target_keeps_its_share_of_a_capacity_that_changes() {
    let mut policy = Policy::new(100);
    policy.insert(0, 50, Admission::Unknown);
    policy.evict(0, 1);
    policy.admit(1, 50);
    assert_eq!(policy.target(), 50.0);
    policy.set_capacity(40);
    assert_eq!(policy.target(), 20.0);
    policy.set_capacity(0);
    assert_eq!(policy.target(), 0.0);
    policy.set_capacity(100);
    assert_eq!(policy.target(), 0.0);
}
