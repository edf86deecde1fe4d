from .charts import Curve, csv_data, curve_chart
from .page import Chart, Columns, Facts, Listing, Page, Picture, Section, Table, Text, page_html, write_page
from .run_page import run_page

__all__ = [
    "Chart",
    "Columns",
    "Curve",
    "Facts",
    "Listing",
    "Page",
    "Picture",
    "Section",
    "Table",
    "Text",
    "csv_data",
    "curve_chart",
    "page_html",
    "run_page",
    "write_page",
]
