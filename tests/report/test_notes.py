"""What is said beside the numbers, each for its cause and not without it."""

from __future__ import annotations

from dataclasses import replace

from small_studies import Study, answers, fill

from transference.report.summary import summarise


def _notes(study, **about):
    return summarise(study.records, study.predictions, about)["notes"]


def test_one_seed_is_said():
    study = Study()
    study.add("unimodal", 0, answers([1, 0]))
    said = "are about test rows only and say nothing about another seed."
    assert f"One seed: the intervals {said}" in _notes(study)
    study.add("unimodal", 1, answers([1, 0]))
    study.add("a", 0, answers([1, 0]))
    study.add("a", 2, answers([1, 0]))
    study.add("b", 0, answers([1, 0]))
    study.add("b", 1, answers([1, 0]))
    assert f"One seed: the intervals of a that are over one seed {said}" in _notes(study)  # of seed 0 alone
    study.add("c", 1, answers([1, 0]))
    assert f"One seed: the intervals of a, c that are over one seed {said}" in _notes(study)
    study.add("a", 1, answers([1, 0]))
    study.add("c", 0, answers([1, 0]))
    assert not any(note.startswith("One seed") for note in _notes(study))


def test_each_note_is_there_for_its_cause_and_not_without_it():
    study = Study()
    fill(study, "unimodal", 0.6, seeds=2)
    fill(study, "a", 0.6, seeds=2)
    fill(study, "a", 0.6, seeds=2, control="shuffle")
    assert _notes(study) == []
    leaks = ["3 photos are in training and test rows.", "7 songs are alike."]
    assert _notes(study, leaks=leaks) == leaks
    study.records[0] = replace(study.records[0], data="data-2")
    assert _notes(study) == [
        "The records were made from different data: their fingerprints differ. Do not compare them."
    ]
    study.records = [record for record in study.records if record.cell.control is None][2:]
    assert _notes(study) == [
        "No arm that sees the primary modality alone has a finished cell: there is no fair reference.",
        "No control was run: a gain may be regularisation.",
    ]


def test_records_of_different_code_are_told():
    study = Study()
    fill(study, "unimodal", 0.6, seeds=2, version="0.1.0+b")
    fill(study, "a", 0.6, seeds=2, version="0.1.0+a", control="shuffle")
    assert _notes(study) == [
        "The records were made by different versions of transference: 0.1.0+a, 0.1.0+b; "
        "run the study anew to compare them."
    ]
