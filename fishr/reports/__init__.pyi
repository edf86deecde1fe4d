from .analysis_page import analysis_page
from .charts import Curve, csv_data, curve_chart, point_chart
from .comparison_page import comparison_page, side_by_side
from .data_section import RunData, load_run_data
from .features_page import features_page
from .matrix_chart import matrix_chart
from .page import Chart, Columns, Facts, Listing, Page, Picture, Section, Table, Text, page_html, write_page
from .run_page import run_page
from .sweep_page import sweep_page

__all__ = [
    "Chart",
    "Columns",
    "Curve",
    "Facts",
    "Listing",
    "Page",
    "Picture",
    "RunData",
    "Section",
    "Table",
    "Text",
    "analysis_page",
    "comparison_page",
    "csv_data",
    "curve_chart",
    "features_page",
    "load_run_data",
    "matrix_chart",
    "page_html",
    "point_chart",
    "run_page",
    "side_by_side",
    "sweep_page",
    "write_page",
]
