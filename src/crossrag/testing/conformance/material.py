"""What the checks are made with: one question with passages of several degrees, and a small corpus."""

from __future__ import annotations

from .target import Passage

QUERY = "How do I restore a backup?"
ANSWER = "To restore a backup, stop the service and run the restore command, then start the service again."
TEXTS = (
    "Whales are mammals; the blue whale is the largest animal that ever lived.",
    "A backup is written every night at two and kept for thirty days.",
    "The office opens at nine in the morning and closes at five.",
    ANSWER,
    "The blue car was parked behind the old station.",
    "Restoring takes about an hour for each hundred gigabytes of backup.",
    "Short.",
    "Cats sleep for most of the day, and hunt at dawn and at dusk.",
)
"""Unlike each other; the fourth answers."""
ODD = ("", " \n", "🦉", "ünï 机器", "\u202eabc", "word " * 3_000)
FILLER = "The harbour was quiet that morning and nobody spoke. "
OTHER_END = "The ferry left at noon with only four passengers on board."

_TOPICS = {
    "backup": (
        ANSWER,
        "A damaged database can be restored from last night's backup with a single command.",
        "If you need to restore a backup, ask an administrator to stop the service first.",
        "Backups that are restored must have been written by the same version of the program.",
    ),
    "whale": (
        "The blue whale is the largest animal that ever lived.",
        "Whales breathe air and must come up to the surface.",
        "Humpback whales sing for hours in winter.",
        "Whaling ended in most countries during the last century.",
    ),
    "leave": (
        "Parental leave lasts fourteen months, two of them for the other parent.",
        "Holiday must be asked for in writing, four weeks ahead.",
        "Who falls ill on holiday gets the days back.",
        "Unused holiday lapses at the end of March.",
    ),
    "bread": (
        "Sourdough rises overnight in a cool kitchen.",
        "Bread is baked at two hundred and thirty degrees.",
        "Rye flour takes up more water than wheat.",
        "A crust becomes crisp when the oven is full of steam.",
    ),
    "train": (
        "The night train to Vienna leaves from platform nine.",
        "A ticket is valid on every train of that day.",
        "Bicycles travel in the last carriage of the train.",
        "Trains are replaced by buses while the bridge is mended.",
    ),
    "password": (
        "A password has at least twelve characters.",
        "After five wrong passwords the account is closed for an hour.",
        "A new password is sent to the address on file.",
        "Passwords are never written to the log of the service.",
    ),
    "printer": (
        "The printer on the second floor prints on both sides.",
        "Paper for the printer is in the cupboard behind the stairs.",
        "When the printer blinks, its drum must be cleaned.",
        "Colour printing has to be paid for by each department.",
    ),
}
CORPUS = tuple(
    Passage(f"{topic}-{number}", text, {"topic": topic, "shelf": "odd" if number % 2 else "even"})
    for topic, texts in _TOPICS.items()
    for number, text in enumerate(texts)
)
QUESTIONS = (
    QUERY,
    "Which command starts the service again?",
    "When does the night train leave?",
    "How long is holiday kept?",
    "What happens after wrong passwords?",
    "Is the largest animal a whale or not?",
    "How hot must an oven be for bread?",
    "Who pays for printing in colour?",
)
