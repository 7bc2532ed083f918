"""What the oldest release that the suite is run with, transformers 5.17, cannot do: tests that are left out there."""

from importlib.util import find_spec

import transformers
from packaging.version import Version

OLD = Version(transformers.__version__) < Version("5.18")
PICTURES = "image processors of transformers 5.17 need torchvision, later ones do not"
LEFT_OUT = {
    PICTURES: (
        "augmentation/test_image_collator.py::test_a_map_is_moved_as_its_image_is",
        "augmentation/test_image_collator.py::test_a_map_is_the_labels_as_it_is",
        "augmentation/test_image_collator.py::test_a_map_may_be_an_array_have_a_palette_or_be_a_file",
        "augmentation/test_image_collator.py::test_a_part_of_a_map_is_the_part_of_its_image_and_has_no_class_between_two",
        "augmentation/test_image_collator.py::test_mixed_images_have_maps_without_a_class",
        "augmentation/test_image_collator.py::test_the_processor_brings_both_to_its_size_and_may_take_a_class_away",
        "cli/test_student.py::test_an_image_teacher_without_a_processor_is_refused",
        "cli/test_student.py::test_layers_of_an_image_teacher_with_its_processor",
        "cli/test_student.py::test_layers_of_each_stage",
        "cli/test_student.py::test_only_the_first_images_are_looked_at",
        "cli/test_student.py::test_the_width_of_an_image_teacher_by_images",
        "cli/test_student.py::test_what_cannot_be_cut_of_an_image_teacher_is_one_sentence",
        "recipes/test_image_classification.py::test_a_model_of_timm_that_is_missing_is_told",
        "recipes/test_image_classification.py::test_a_model_without_an_image_processor_is_told",
        "recipes/test_image_classification.py::test_a_teacher_that_is_fine_tuned_reads_what_the_student_reads",
        "recipes/test_image_classification.py::test_the_whole_job_on_digits",
        "recipes/test_object_detection.py::test_the_whole_job_on_canvases",
        "recipes/test_segmentation.py::test_a_parquet_file_and_names_of_classes",
        "recipes/test_segmentation.py::test_a_student_is_told_few_maps_and_a_teacher_all",
        "recipes/test_segmentation.py::test_the_whole_job_on_canvases",
        "recipes/test_segmentation.py::test_where_0_is_no_class_1_is_the_first",
        "recipes/test_vision_language.py::test_the_whole_job_on_digits",
        "recipes/test_vision_language.py::test_what_is_saved_answers_a_question_about_a_picture",
        "tasks/test_processors.py::test_a_processor_that_was_saved_prepares_the_same",
        "tasks/test_processors.py::test_of_a_processor_of_pictures_and_texts_both_halves_are_compared",
        "tasks/test_processors.py::test_what_differs_is_told",
    ),
    "T5 of transformers 5.17 shows no attention maps": (
        "trainer/test_streams.py::test_a_term_that_names_the_main_stream_equals_one_that_names_none[attention",
        "trainer/test_streams.py::test_attention_of_an_encoder_is_compared_over_its_own_queries",
        "trainer/test_streams.py::test_terms_on_an_encoder_train_and_differ_from_those_on_the_decoder[attention",
    ),
    "the CTC loss of transformers 5.17 is divided in another way": (
        "tasks/test_ctc.py::test_labels_that_are_the_blank_are_padding",
    ),
    "Qwen2-VL of transformers 5.17 does not say how deep its tower is": (
        "tasks/test_image_text_to_text.py::test_the_tower_of_images_is_compared_where_it_is_asked_for[qwen2_vl",
    ),
    "the tiny YOLOS or Whisper of the test is too small for transformers 5.17": (
        "students/test_fresh.py::test_one_depth_is_not_asked_of_a_model_in_stages",
        "students/test_stages.py::test_positions_between_layers_go_with_the_layer_before_them",
        "recipes/test_distil_whisper.py::test_the_whole_job",
    ),
    "the Hub's client beside transformers 5.17 checks a card with the Hub itself": (
        "hub/test_card.py::test_a_teacher_is_no_base_of_a_student_that_it_only_taught",
        "hub/test_card.py::test_the_hub_takes_what_a_report_says",
    ),
}


def left_out(nodeid):
    """Why a test is left out with the transformers that is installed; None where it is not."""
    for reason, names in LEFT_OUT.items() if OLD else ():
        if any(f"tests/{name}" in nodeid for name in names) and not (reason == PICTURES and find_spec("torchvision")):
            return reason
    return None
