//! The difference of two texts, line by line.

/// Every line of both: in front of it a space when both have it, `-` when only the first, `+` when only the second has it. The longest
/// common subsequence stays; plans have a few dozen lines, so its quadratic table is small.
pub fn lines(before: &str, after: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    // common[i][j]: length of the longest common subsequence of a[i..] and b[j..].
    let mut common = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = if a[i] == b[j] { 1 + common[i + 1][j + 1] } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::with_capacity(a.len() + b.len());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push(format!(" {}", a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j >= b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
            out.push(format!("-{}", a[i]));
            i += 1;
        } else {
            out.push(format!("+{}", b[j]));
            j += 1;
        }
    }
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_differs_is_marked() {
        assert_eq!(
            lines("Limit\n  Seq Scan\n    Filter", "Limit\n  Index Scan\n    Filter"),
            " Limit\n-  Seq Scan\n+  Index Scan\n     Filter"
        );
        assert_eq!(lines("", "a"), "+a");
        assert_eq!(lines("a", ""), "-a");
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_from_it(a in prop::collection::vec("[ab]{1,2}", 0..8), b in prop::collection::vec("[ab]{1,2}", 0..8)) {
            let text = lines(&a.join("\n"), &b.join("\n"));
            let without = |mark: char| text.lines().filter(|l| !l.starts_with(mark)).map(|l| l[1..].to_owned()).collect::<Vec<_>>();
            prop_assert_eq!(without('+'), a);
            prop_assert_eq!(without('-'), b);
        }
    }
}
