"""What can be wrong with a lab's data: stable codes, severities, and the way to mend each.

NK1xx are about files, NK2xx labels, NK3xx subjects and splits, NK4xx the skeleton. A code never
changes its meaning. Source: notes ecosystem 2.2.
"""

import dataclasses

SEVERITIES = ("error", "warning", "note")
EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Rule:
    """A kind of problem: severity, what is wrong (one phrase), what nkjax does, how to mend it."""

    severity: str
    what: str
    response: str
    fix: str


# error: packing refuses, unless --allow_skip CODE leaves the entries out. warning: packing goes on
# with the stated response. note: worth knowing.
RULES = {
    # files
    "NK101": Rule("error", "pictures that do not decode", "left out only when allowed",
                  "copy them again from their source, or pack with --allow_skip NK101"),
    "NK102": Rule("error", "files with several frames", "left out only when allowed",
                  "save the frame you mean as JPEG or PNG, or pack with --allow_skip NK102"),
    "NK103": Rule("error", "CMYK or transparent pictures, whose colours are undefined",
                  "left out only when allowed",
                  "convert them to RGB, or pack with --allow_skip NK103"),
    "NK111": Rule("warning", "16-bit pictures",
                  "values v become round(v / 257): almost black, if the largest is far below 65535",
                  "stretch dark ones to the whole range and save them with 8 bits"),
    "NK112": Rule("note", "pictures that are not plain 8-bit RGB", "converted to RGB", ""),
    "NK121": Rule("warning", "pictures with an EXIF rotation that their labels do not have",
                  "kept as stored, as the annotators saw them; the flag is dropped",
                  "if the labels are of the upright picture, correct width and height in the JSON"),
    "NK122": Rule("error", "EXIF rotations that the JSON's size does not decide",
                  "left out only when allowed",
                  "say it for these pictures: --exif apply if their labels are of the upright"
                  " picture, else --exif ignore"),
    "NK123": Rule("error", "pictures of another size than the JSON says",
                  "left out only when allowed",
                  "restore the labelled files, or correct width and height in the JSON"),
    "NK124": Rule("note", "EXIF rotations that the labels have too", "baked into the pixels", ""),
    "NK125": Rule("note", "videos with a rotation flag", "turned upright", ""),
    "NK126": Rule("note", "images whose width and height the JSON does not give",
                  "the size of the file is taken", ""),
    "NK131": Rule("error", "pictures of the JSON that are not there", "left out only when allowed",
                  "check --images, or pack with --allow_skip NK131"),
    "NK132": Rule("warning", "file names that differ in case or in Unicode form",
                  "matched all the same", "write the names in the JSON as the files are called"),
    "NK133": Rule("note", "files in --images that the JSON does not name", "not used",
                  "name the folder with --unlabelled too, to learn from them"),
    "NK134": Rule("error", "file names that fit several files", "left out only when allowed",
                  "write file_name relative to --images"),
    "NK135": Rule("warning", "pictures in another folder than the JSON says",
                  "matched by file name alone", "write file_name relative to --images"),
    "NK136": Rule("error", "images of the JSON that are one and the same file",
                  "left out only when allowed",
                  "keep one entry per picture, with all its annotations"),
    "NK141": Rule("warning", "pictures with the same content as another",
                  "kept on one side of the split", "remove the copies"),
    "NK142": Rule("note", "unlabelled pictures or frames close to the one before", "thinned out",
                  ""),
    "NK143": Rule("warning",
                  "unlabelled pictures of a held-out child, or like a validation or test picture",
                  "left out", ""),
    "NK144": Rule("note", "unlabelled pictures that have labels too", "left out", ""),
    "NK145": Rule("note", "unlabelled pictures that the JSON lists, with an error", "left out",
                  "mend the error; other lines say what it is"),
    "NK146": Rule("note", "unlabelled pictures with the same content as another", "left out", ""),
    "NK151": Rule("warning", "unlabelled files that do not decode", "left out",
                  "copy them again from their source, or remove them"),
    "NK152": Rule("warning", "unlabelled pictures without a detected person", "left out",
                  "run the detector on them, or leave out --detections"),
    "NK153": Rule("warning", "videos that end before their header says",
                  "the frames that are there are used", "copy them again from their source"),
    "NK154": Rule("note", "files in --unlabelled that are neither pictures nor videos", "not used",
                  "save them as JPEG, PNG or MP4 to learn from them"),
    "NK155": Rule("warning", "files of an --unlabelled list that are not there", "left out",
                  "write them relative to the list's folder"),
    "NK156": Rule("warning", "folders and links that cannot be opened",
                  "left out, with all that is in them",
                  "make them readable, or remove the links that lead nowhere"),
    # labels
    "NK201": Rule("note", "joints by visibility", "0, 1 and 2 are kept apart", ""),
    "NK202": Rule("error", "people with visibility values other than 0, 1 and 2",
                  "left out only when allowed",
                  "write 0 not labelled, 1 occluded, 2 visible"),
    "NK203": Rule("warning", "joints marked as labelled at (0, 0)", "visibility set to 0",
                  "correct them in the labelling tool"),
    "NK204": Rule("warning", "joints with a confidence in place of a visibility",
                  "taken as placed (1), not as seen (2)",
                  "check these labels: a model placed them"),
    "NK205": Rule("note", "labelled joints of a face, hand or foot marked as not valid",
                  "visibility set to 0", ""),
    "NK206": Rule("note", "joints with a place but marked as not labelled (0)",
                  "not used, the place is dropped",
                  "if your tool writes 0 for occluded joints, make them 1"),
    "NK207": Rule("note", "joints of faces, hands and feet with visibility 1",
                  "kept as 1, though COCO-WholeBody writes it whether occluded or not", ""),
    "NK211": Rule("error", "entries with a number that is NaN, infinite or beyond a million px",
                  "left out only when allowed",
                  "export the labels again, or pack with --allow_skip NK211"),
    "NK214": Rule("warning", "joints outside the picture", "visibility set to 0", "correct them"),
    "NK215": Rule("error", "people with most joints outside the picture",
                  "left out only when allowed",
                  "check width, height and the joint order, or pack with --allow_skip NK215"),
    "NK216": Rule("warning", "people with many joints outside their box", "kept",
                  "check that box and joints are of one person"),
    "NK217": Rule("note", "joints up to 1 px outside the picture", "moved onto its edge", ""),
    "NK221": Rule("warning", "boxes less than 1 px wide or high inside the picture",
                  "rebuilt around the joints", "correct them"),
    "NK222": Rule("error", "boxes that look like x1, y1, x2, y2, as a file",
                  "left out only when allowed",
                  "add --box_format xyxy, or write x, y, width, height"),
    "NK223": Rule("warning", "people without a box", "rebuilt around the joints", ""),
    "NK224": Rule("error", "people with neither a usable box nor joints",
                  "left out only when allowed", "remove them, or pack with --allow_skip NK224"),
    "NK225": Rule("warning", "boxes that reach outside the picture", "cut to the picture", ""),
    "NK231": Rule("warning", "annotations with id 0", "renumbered from 1",
                  "evaluation tools lose it; renumber from 1"),
    "NK232": Rule("error", "annotations that share their id", "left out only when allowed",
                  "renumber the annotations"),
    "NK233": Rule("error", "images that share their id", "left out only when allowed",
                  "renumber the images"),
    "NK234": Rule("note", "people whose num_keypoints is missing or wrong", "counted again", ""),
    "NK235": Rule("note", "people without a usable area or iscrowd",
                  "area = 0.53 x box, iscrowd = 0", ""),
    "NK236": Rule("note", "ids that are text", "numbered, the text kept in private/", ""),
    "NK237": Rule("error", "annotations of an image that is not listed",
                  "left out only when allowed",
                  "add the image, or pack with --allow_skip NK237"),
    "NK238": Rule("note", "people without a labelled joint", "ignored in training", ""),
    "NK239": Rule("note", "crowds and regions marked ignore", "ignored in training", ""),
    "NK240": Rule("note", "images without usable people", "left out",
                  "name --images with --unlabelled too, to learn from those without annotations"),
    "NK241": Rule("warning", "no usable detection in the file", "no box",
                  "run the detector again"),
    "NK242": Rule("warning", "detections that cannot be used", "left out", ""),
    "NK243": Rule("error", "entries without the required keys", "left out only when allowed",
                  "export the labels again"),
    "NK244": Rule("note", "annotations of another category", "not used", ""),
    "NK245": Rule("note", "people on pictures that are left out", "left out with them",
                  "mend the pictures; other lines say what is wrong with them"),
    "NK246": Rule("note", "detections below --min_score", "left out", ""),
    "NK247": Rule("error", "sets of data with nobody to learn from", "packing refuses",
                  "mend what other lines say, or label the joints of somebody"),
    "NK251": Rule("warning", "people with a bone far outside the usual ratio", "kept",
                  "look at suspicious.jpg and correct the labels"),
    "NK252": Rule("warning", "people whose left and right seem swapped", "kept",
                  "look at suspicious.jpg and correct the labels"),
    "NK253": Rule("warning", "near-identical pictures with far-apart labels", "kept",
                  "look at suspicious.jpg and correct the labels"),
    "NK254": Rule("note", "people, too few to judge labels by each other",
                  "bone lengths and sides not looked at", ""),
    # subjects and splits
    "NK301": Rule("warning", "sets of labels in which no child is named",
                  "split by groups of near-identical pictures",
                  "name the children: --subjects subjects.csv"),
    "NK302": Rule("error", "subjects on both sides of a split", "packing refuses",
                  "give each subject one split"),
    "NK303": Rule("error", "the same picture on both sides of a split", "packing refuses",
                  "remove the copies, or give both one subject"),
    "NK304": Rule("warning", "near-identical pictures on both sides of a split", "kept",
                  "look whether they show one child under two ids"),
    "NK305": Rule("error", "pictures without a subject", "left out only when allowed",
                  "add them to the subjects file, or pack with --allow_skip NK305"),
    "NK306": Rule("warning", "lines of the subjects file that fit no picture", "not used",
                  "correct the names"),
    "NK307": Rule("error", "pictures that fit several subjects", "left out only when allowed",
                  "make the patterns narrower"),
    "NK308": Rule("note", "columns of the subjects file that nkjax does not know", "not used", ""),
    "NK309": Rule("warning", "splits without a subject: there are too few", "stay empty",
                  "name more subjects, or ask for fewer splits"),
    "NK310": Rule("warning", "divisions with other shares of people than asked for", "kept",
                  "subjects are not divided; give them their split in the subjects file"),
    "NK311": Rule("warning", "unlabelled pictures without a subject",
                  "kept, though they may show a held-out child",
                  "add them to the subjects file, by pattern"),
    "NK312": Rule("warning", "subjects whose ids differ only in case, zeros, quotes or dashes",
                  "kept apart, as several children",
                  "if they are one child, write its id in one way"),
    # skeleton
    "NK401": Rule("warning", "a skeleton without sigmas", "no OKS, only PCK and px",
                  "add sigmas to the skeleton file"),
    "NK402": Rule("error", "people with another number of joints than the skeleton",
                  "left out only when allowed", "name the right one with --skeleton"),
    "NK412": Rule("warning", "left and right are swapped in most people", "kept",
                  "check the joint order of the labelling tool"),
    "NK421": Rule("error", "joints of the skeleton that the JSON does not have",
                  "packing refuses", "name the right one with --skeleton, or mend the names"),
    "NK422": Rule("warning", "joints in another order than the skeleton's",
                  "put in order by name", ""),
    "NK423": Rule("note", "joints of the JSON that the skeleton does not have", "left out", ""),
    "NK424": Rule("warning", "the JSON does not name its joints", "taken in the skeleton's order",
                  "add 'keypoints' to the category"),
    "NK425": Rule("note", "people with feet, face and hands beside their joints (COCO-WholeBody)",
                  "feet, face and hands are not used", "--skeleton wholebody133 takes them in"),
}  # fmt: skip
# What is counted under these is not in the data: files, pictures, people or boxes.
LEAVES_OUT = frozenset(
    "NK101 NK102 NK103 NK122 NK123 NK131 NK133 NK134 NK136 NK142 NK143 NK144 NK145 NK146 NK151"
    " NK152 NK154 NK155 NK156 NK202 NK211 NK215 NK222 NK224 NK232 NK233 NK237 NK240 NK242 NK243"
    " NK244 NK245 NK246 NK305 NK307 NK402".split()
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A problem with how often it occurs and up to three examples."""

    code: str
    severity: str
    count: int
    what: str
    response: str
    fix: str
    examples: tuple[str, ...]


class Findings:
    """Collect findings while reading; the order of `add` decides the examples, not the outcome."""

    def __init__(self):
        self._counts, self._examples = {}, {}

    def add(self, code: str, example: str = "", count: int = 1) -> None:
        """Count a problem (a key of RULES), naming the file, id or number it was seen at."""
        if code not in RULES:
            raise KeyError(code)
        self._counts[code] = self._counts.get(code, 0) + count
        examples = self._examples.setdefault(code, [])
        if example and len(examples) < EXAMPLES:
            examples.append(" ".join(example.split())[:300])

    def count(self, code: str) -> int:
        """Return how often a code was added."""
        return self._counts.get(code, 0)

    def listed(self) -> tuple[Finding, ...]:
        """Return all findings, errors first, each severity by code."""
        codes = sorted(self._counts, key=lambda c: (SEVERITIES.index(RULES[c].severity), c))
        return tuple(
            Finding(code, rule.severity, self._counts[code], rule.what, rule.response, rule.fix,
                    tuple(self._examples[code]))
            for code in codes
            for rule in [RULES[code]]
        )  # fmt: skip

    def errors(self, allowed=()) -> tuple[Finding, ...]:
        """Return the errors whose codes are not among those allowed."""
        return tuple(f for f in self.listed() if f.severity == "error" and f.code not in allowed)
