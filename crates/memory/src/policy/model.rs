//! What the policy is tested against: the same rules over plain vectors, and the paper's own algorithm for pages.
//! Both are naive on purpose, and name values by identity.

use super::{Admission, GHOSTS_ALWAYS, GHOSTS_PER_RESIDENT};

/// Identity and weight; the least recently used comes first.
pub(super) type Row = Vec<(u64, u32)>;

/// Weighted ARC with the bounds that `policy` documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) c: u64,
    pub(super) p: f64,
    pub(super) t1: Row,
    pub(super) t2: Row,
    pub(super) b1: Row,
    pub(super) b2: Row,
}

impl Model {
    pub(super) fn new(c: u64) -> Self {
        Model { c, ..Model::default() }
    }

    pub(super) fn resident_weight(&self) -> u64 {
        sum(&self.t1) + sum(&self.t2)
    }

    pub(super) fn hit(&mut self, id: u64) {
        let weight = self.take_resident(id).expect("a resident");
        self.t2.push((id, weight));
    }

    pub(super) fn admit(&mut self, id: u64, weight: u32) -> Admission {
        let (b1, b2) = (sum(&self.b1) as f64, sum(&self.b2) as f64);
        let weight = f64::from(weight);
        if take(&mut self.b1, id).is_some() {
            self.p = (self.p + weight * (b2 / b1.max(1.0)).max(1.0)).min(self.c as f64);
            Admission::Recent
        } else if take(&mut self.b2, id).is_some() {
            self.p = (self.p - weight * (b1 / b2.max(1.0)).max(1.0)).max(0.0);
            Admission::Frequent
        } else {
            Admission::Unknown
        }
    }

    pub(super) fn victim(&self, admission: Admission) -> Option<u64> {
        let (first, second) =
            if self.t1_loses(admission) { (&self.t1, &self.t2) } else { (&self.t2, &self.t1) };
        first.first().or(second.first()).map(|&(id, _)| id)
    }

    pub(super) fn evict(&mut self, id: u64) {
        take(&mut self.b1, id);
        take(&mut self.b2, id);
        if let Some(weight) = take(&mut self.t1, id) {
            self.b1.push((id, weight));
        } else if let Some(weight) = take(&mut self.t2, id) {
            self.b2.push((id, weight));
        }
        self.bound();
    }

    pub(super) fn insert(&mut self, id: u64, weight: u32, admission: Admission) {
        match admission {
            Admission::Unknown => self.t1.push((id, weight)),
            Admission::Recent | Admission::Frequent => self.t2.push((id, weight)),
        }
        self.bound();
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.take_resident(id);
        self.bound();
    }

    pub(super) fn reweigh(&mut self, id: u64, weight: u32) {
        for entry in self.t1.iter_mut().chain(&mut self.t2).filter(|entry| entry.0 == id) {
            entry.1 = weight;
        }
        self.bound();
    }

    pub(super) fn rotate(&mut self, id: u64) {
        if let Some(weight) = take(&mut self.t1, id) {
            self.t1.push((id, weight));
        } else if let Some(weight) = take(&mut self.t2, id) {
            self.t2.push((id, weight));
        }
    }

    pub(super) fn chill(&mut self, id: u64) {
        let losing_t1 = match (self.t1.is_empty(), self.t2.is_empty()) {
            (false, false) => self.t1_loses(Admission::Unknown),
            (t1_empty, _) => !t1_empty,
        };
        let weight = self.take_resident(id).expect("a resident");
        if losing_t1 { &mut self.t1 } else { &mut self.t2 }.insert(0, (id, weight));
        self.bound();
    }

    pub(super) fn set_capacity(&mut self, c: u64) {
        self.p = (self.p / self.c.max(1) as f64 * c as f64).min(c as f64);
        self.c = c;
        self.bound();
    }

    fn t1_loses(&self, admission: Admission) -> bool {
        let (t1, p) = (sum(&self.t1) as f64, self.p.floor());
        t1 > p || (t1 == p && admission == Admission::Frequent)
    }

    fn take_resident(&mut self, id: u64) -> Option<u32> {
        take(&mut self.t1, id).or_else(|| take(&mut self.t2, id))
    }

    fn bound(&mut self) {
        while !self.b1.is_empty() && sum(&self.t1) + sum(&self.b1) > self.c {
            self.b1.remove(0);
        }
        while self.resident_weight() + sum(&self.b1) + sum(&self.b2) > 2 * self.c {
            if !self.b2.is_empty() {
                self.b2.remove(0);
            } else if !self.b1.is_empty() {
                self.b1.remove(0);
            } else {
                break;
            }
        }
        let most = GHOSTS_ALWAYS + GHOSTS_PER_RESIDENT * (self.t1.len() + self.t2.len());
        while self.b1.len() + self.b2.len() > most {
            if self.b1.len() > self.b2.len() { &mut self.b1 } else { &mut self.b2 }.remove(0);
        }
    }
}

/// Figure 4 of the paper, for pages, line by line.
#[derive(Debug, Default)]
pub(super) struct Paper {
    pub(super) c: usize,
    p: f64,
    pub(super) t1: Row,
    pub(super) t2: Row,
    pub(super) b1: Row,
    pub(super) b2: Row,
}

impl Paper {
    pub(super) fn new(c: usize) -> Self {
        Paper { c, ..Paper::default() }
    }

    /// Requests a page; true on a hit.
    pub(super) fn request(&mut self, x: u64) -> bool {
        let (b1, b2) = (self.b1.len() as f64, self.b2.len() as f64);
        if take(&mut self.t1, x).or_else(|| take(&mut self.t2, x)).is_some() {
            self.t2.push((x, 1));
            return true;
        }
        if self.b1.contains(&(x, 1)) {
            self.p = (self.p + f64::max(b2 / b1, 1.0)).min(self.c as f64);
            self.replace(x);
            take(&mut self.b1, x);
            self.t2.push((x, 1));
        } else if self.b2.contains(&(x, 1)) {
            self.p = (self.p - f64::max(b1 / b2, 1.0)).max(0.0);
            self.replace(x);
            take(&mut self.b2, x);
            self.t2.push((x, 1));
        } else {
            self.case_four(x);
            self.t1.push((x, 1));
        }
        false
    }

    fn case_four(&mut self, x: u64) {
        let l1 = self.t1.len() + self.b1.len();
        let total = l1 + self.t2.len() + self.b2.len();
        if l1 == self.c {
            if self.t1.len() < self.c {
                self.b1.remove(0);
                self.replace(x);
            } else {
                self.t1.remove(0);
            }
        } else if total >= self.c {
            if total == 2 * self.c {
                self.b2.remove(0);
            }
            self.replace(x);
        }
    }

    fn replace(&mut self, x: u64) {
        let (t1, p) = (self.t1.len(), self.p.floor() as usize);
        if t1 >= 1 && (t1 > p || (t1 == p && self.b2.contains(&(x, 1)))) {
            self.b1.push(self.t1.remove(0));
        } else {
            self.b2.push(self.t2.remove(0));
        }
    }
}

fn sum(row: &Row) -> u64 {
    row.iter().map(|&(_, weight)| u64::from(weight)).sum()
}

fn take(row: &mut Row, id: u64) -> Option<u32> {
    let at = row.iter().position(|entry| entry.0 == id)?;
    Some(row.remove(at).1)
}
